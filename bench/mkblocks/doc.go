// Command mkblocks writes a bucket as a directory: many small blocks of many tenants, and a large block in three
// resolutions. `hearth store` and `thanos store` serve it as FILESYSTEM; an S3 server over plain files (versitygw)
// serves the same directory as a bucket.
//
//	go run ./bench/mkblocks -dir bucket -blocks 10000              # 50 tenants, 200 series of 2 h each
//	go run ./bench/mkblocks -dir bucket -blocks 100000
//	go run ./bench/mkblocks -dir bucket -blocks 0 -large 2000000   # 14 days, raw, 5m and 1h
//
// The same flags write the same bytes. What it writes is described in bench/blocks.
package main
