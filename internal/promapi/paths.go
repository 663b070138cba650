package promapi

// ArrivalsPath is where a querier says what has changed of the samples of one tenant (series.Arrivals as JSON), for a
// query frontend in another process. Its parameter since is a time in Unix ms.
const ArrivalsPath = "/api/v1/status/arrivals"
