// Package overrides keeps the limits of all tenants as the flags and files of a process say them, and follows the files.
//
// Flow: flags (Options.Base) -> Thanos's limits file -> the runtime configuration file -> tenant.LimitTable -> Of. Reload
// reads the files now; once open, a change of a file or the interval does.
//
// Invariants:
//   - Of takes no lock, and answers from the last table that was valid. It changes only as a whole.
//   - A file that is not valid changes nothing, and is reported: by Reload to its caller, else once in the log; in the
//     metrics and in Status either way.
//   - Limits that a reload leaves as they were keep their pointer.
//
// dskit's runtimeconfig is not used: it merges files as maps and so loses the lines that an error must name, it knows one
// form of file, and it cannot be told to read now and answer what came of it.
//
// Locks: Overrides.mu is held while files are read; Of and Status do not wait for that.
package overrides
