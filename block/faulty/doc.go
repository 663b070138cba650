// Package faulty is a bucket that fails, for tests of what must hold whatever request of a bucket fails.
//
// Flow:  test -> Bucket -> bucket
//
// Locks: none. A Bucket is used by one goroutine at a time.
package faulty
