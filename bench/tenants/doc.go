// Command tenants measures what very many small tenants cost one receiver: memory, open files, goroutines, and how
// long it takes to stop and to come back.
//
//	make bench-tenants
//	go run ./bench/tenants -hearth bin/hearth -active 1000 -idle 9000
//
// Flow of the first run: every tenant is active and gets some chunks full -> kill -9 -> start -> stop -> start.
// Flow of the second: a few tenants are written to all the time, the others once -> the others are closed -> some of
// those are written to again -> kill -9 -> start -> stop -> start.
//
// An open tenant takes up to six descriptors. Where the process may not open as many the first run takes fewer tenants,
// says so, and reckons what all would take.
package main
