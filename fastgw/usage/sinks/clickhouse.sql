-- Usage events of fastgw in ClickHouse 24.10 or newer: `fastgw schema clickhouse | clickhouse-client --database <yours>`
--
-- Events arrive at least once. Doubles are equal in every field, so they have the same sorting key and lie in the same
-- partition: merges drop them in time, and FINAL drops those that no merge has met yet. Questions about money say FINAL:
--
--   SELECT team, sum(cost) FROM usage_events FINAL WHERE timestamp >= '2026-10-01' AND timestamp < '2026-11-01' GROUP BY team
--
-- To delete what is old: ALTER TABLE usage_events MODIFY TTL toDateTime(timestamp) + INTERVAL 400 DAY

CREATE TABLE IF NOT EXISTS usage_events
(
    schema UInt8,
    requestId String,
    timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    gateway LowCardinality(String),
    endpoint LowCardinality(String),
    agentId LowCardinality(String),
    userId Nullable(String),
    credential LowCardinality(Nullable(String)),
    team LowCardinality(Nullable(String)),
    project LowCardinality(Nullable(String)),
    billingAccount LowCardinality(Nullable(String)),
    labels Map(LowCardinality(String), String),
    method LowCardinality(String),
    tool LowCardinality(Nullable(String)),
    mcpServer LowCardinality(Nullable(String)),
    instance LowCardinality(Nullable(String)),
    outcome LowCardinality(String),
    statusCode UInt16,
    errorCode Nullable(Int64),
    refusedBy LowCardinality(Nullable(String)),
    attempts UInt16,
    failover Bool,
    cached Bool,
    latencyMs Decimal(18, 3),
    overheadMs Decimal(18, 3),
    bytesIn UInt64,
    bytesOut UInt64,
    tokensIn Nullable(Int64),
    tokensOut Nullable(Int64),
    cost Nullable(Decimal(18, 9)),
    currency LowCardinality(String),
    rateLimitRemaining Nullable(Int64),
    protocolVersion LowCardinality(String),
    traceId Nullable(String)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, requestId);

-- Roll-ups. A materialised view that adds up each INSERT would count doubles twice and never mend it. These are
-- refreshed instead: each time they are made anew from the events without their doubles, and put in place at once. So
-- they are exact, late events and doubles or not, as of their last refresh (system.view_refreshes says when that was).
-- Whoever keeps so many events that this takes too long asks usage_events FINAL, or lengthens the period.

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_by_hour
REFRESH EVERY 1 HOUR
(
    hour DateTime('UTC'),
    team LowCardinality(Nullable(String)),
    project LowCardinality(Nullable(String)),
    billingAccount LowCardinality(Nullable(String)),
    agentId LowCardinality(String),
    tool LowCardinality(Nullable(String)),
    mcpServer LowCardinality(Nullable(String)),
    outcome LowCardinality(String),
    currency LowCardinality(String),
    calls UInt64,
    tokensIn Int64,
    tokensOut Int64,
    bytesIn UInt64,
    bytesOut UInt64,
    latencyMs Decimal(38, 3),
    cost Decimal(38, 9)
)
ENGINE = MergeTree
ORDER BY hour
AS SELECT
    toStartOfHour(toDateTime(timestamp, 'UTC')) AS hour,
    team, project, billingAccount, agentId, tool, mcpServer, outcome, currency,
    count() AS calls,
    ifNull(sum(events.tokensIn), 0) AS tokensIn,
    ifNull(sum(events.tokensOut), 0) AS tokensOut,
    sum(events.bytesIn) AS bytesIn,
    sum(events.bytesOut) AS bytesOut,
    sum(events.latencyMs) AS latencyMs,
    ifNull(sum(events.cost), 0) AS cost
FROM usage_events AS events FINAL
GROUP BY hour, team, project, billingAccount, agentId, tool, mcpServer, outcome, currency
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_by_day
REFRESH EVERY 1 HOUR DEPENDS ON usage_by_hour
(
    day Date,
    team LowCardinality(Nullable(String)),
    project LowCardinality(Nullable(String)),
    billingAccount LowCardinality(Nullable(String)),
    agentId LowCardinality(String),
    tool LowCardinality(Nullable(String)),
    mcpServer LowCardinality(Nullable(String)),
    outcome LowCardinality(String),
    currency LowCardinality(String),
    calls UInt64,
    tokensIn Int64,
    tokensOut Int64,
    bytesIn UInt64,
    bytesOut UInt64,
    latencyMs Decimal(38, 3),
    cost Decimal(38, 9)
)
ENGINE = MergeTree
ORDER BY day
AS SELECT
    toDate(hours.hour) AS day,
    team, project, billingAccount, agentId, tool, mcpServer, outcome, currency,
    sum(hours.calls) AS calls,
    sum(hours.tokensIn) AS tokensIn,
    sum(hours.tokensOut) AS tokensOut,
    sum(hours.bytesIn) AS bytesIn,
    sum(hours.bytesOut) AS bytesOut,
    sum(hours.latencyMs) AS latencyMs,
    sum(hours.cost) AS cost
FROM usage_by_hour AS hours
GROUP BY day, team, project, billingAccount, agentId, tool, mcpServer, outcome, currency;
