// Package tenants is what operators ask a compactor about tenants: to delete one, or samples of one, and to undo that.
// It writes requests (block/deletion); the compactor, receivers and store gateways follow them.
//
// Flow:  request of an operator -> look at the bucket -> change.DeleteTenant -> audit, request object -> bucket
//
// Locks: none.
package tenants
