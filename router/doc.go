// Package router is the public front of Paddock: it accepts HTTP and gRPC requests, checks credentials against one
// route table, takes the tenant's rate and concurrency, finds the code, asks a node to run it and answers. Management
// calls pass through the same table to services that are handed in.
//
// It keeps no state that another router would need, owns no container and no store, reads nothing from the store on the
// way of a call, and never looks into a caller's JSON beyond asking whether it is JSON.
package router
