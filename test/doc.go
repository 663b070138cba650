// Package test runs Hearth end to end: real processes on loopback, a real Prometheus, a real S3 server.
//
// Flow:  TestMain builds ./cmd/hearth once -> each test starts processes on free ports with data in its own temporary
// directory -> conditions are polled with deadlines -> everything is killed and removed; the log of a process that is
// involved in a failure is printed.
//
// What it needs (Prometheus, versitygw) is installed by `make tools` into .tools/bin; a missing program fails the test.
package test
