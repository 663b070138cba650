// Package overrides keeps the limits of all tenants that the flags and files of a process set, and follows the files.
//
// Flow: flags (Options.Base) -> Thanos's limits file -> the runtime configuration file -> tenant.LimitTable -> Of.
// Reload reads the files at once. After Open a change of a file has them read too, and so does the interval.
//
// Invariants:
//   - Of takes no lock, and answers from the last table that was valid. It changes only as a whole.
//   - A file that is not valid changes nothing. Reload returns its fault; a fault that is found otherwise is logged
//
// once.
//
//	  The metrics and Status show both.
//	- Limits that a reload leaves as they were keep their pointer.
//
// dskit's runtimeconfig is not used. It merges files as maps and so loses the lines that an error must name, it knows
// one form of file, and it cannot read at a caller's request and return the result.
//
// Locks: Overrides.mu is held while files are read; Of and Status do not wait for that.
package overrides
