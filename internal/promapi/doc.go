// Package promapi is what all parts have in common that answer as Prometheus's query API: how parameters are read, and
// what an error becomes.
//
// Flow: request -> Time, Int, Bool, Resolution -> the handler -> httpx.WriteData, or WriteError
//
// Invariants: errors of parameters are of kind Invalid and name the parameter. The type of an error in an answer says
// what clients may do about it, and agrees with the status.
//
// Locks: none.
package promapi
