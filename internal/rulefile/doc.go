// Package rulefile checks files of recording and alerting rules, as Prometheus and Thanos write them, without running
// them.
//
// Flow: bytes of a file -> Check -> how many rules there are, what is wrong, and what is doubtful
//
// Invariants: a file has faults if and only if `thanos tools rules-check` refuses it, except for expressions
// that internal/expr bounds. Doubts are what Thanos passes and a ruler would not.
package rulefile
