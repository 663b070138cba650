// Package show writes the blocks of a bucket as text: as lists and tables in the forms of `thanos tools bucket ls` and
// `inspect`, which scripts read.
//
// Flow: metas of a view -> Lister, or Rows -> Sort -> WriteTable, WriteSeparated, WriteJSON
//
// Invariants: the output depends on the metas alone, and on the local time zone, in which Thanos prints times. Texts of
// metas come from a bucket: a table for people shows their control characters escaped.
package show
