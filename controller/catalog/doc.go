// Package catalog is what Paddock knows of tenants, their API keys and their functions. Service changes it, by writes
// guarded with the revisions that they were decided on; View holds all of it in memory, fed by the store's watch, and
// answers without locks and without the store; Server offers both as the Catalog and Keys of the API. Code is kept
// encrypted in blobs, a data key for each tenant. It runs no code, knows no containers, and does not decide who may call
// what beyond the tenant's own bounds: the router does.
package catalog
