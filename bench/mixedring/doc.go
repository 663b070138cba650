// Command mixedring counts copies in a ring of Thanos and Hearth receivers side by side: routers and ingestors in one
// process each, named by one hashring file. It starts every mixture of the two, writes through each kind of member,
// sends each request a second time as a Prometheus does that has lost the answer, and then asks each member over
// StoreAPI for what it holds. Each sample must be on as many members as there are copies, and no request may be
// refused.
//
//	go run ./bench/mixedring -thanos PATH -hearth bin/hearth
//
// It needs a binary of Thanos, which CI does not have. The exit status is 1 when copies are missing.
package main
