// Package promapi is shared by all parts that answer as Prometheus's query API does. It reads parameters and turns
// errors into answers.
//
// Flow: request -> Time, Int, Bool, Resolution -> the handler -> httpx.WriteData, or WriteError
//
// Invariants: errors of parameters are of kind Invalid and name the parameter. The type of an error in an answer says
// what clients may do about it, and agrees with the status.
//
// Locks: none.
package promapi
