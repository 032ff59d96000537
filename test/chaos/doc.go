// Package chaos breaks a whole cluster of real processes while tenants call: three members of the store, three controllers
// with real sandboxes and two routers on one machine, between them proxies of our own that hold, cut or delay what they carry. For each
// fault it measures what was promised; from what the callers, the host and the store's writers have seen it checks afterwards
// that no container ever had two tenants, that no call ran twice, that versions are linearizable and that nothing is left. It
// has only tests, and attacks nobody: that is test/hostile. See docs/chaos.md.
package chaos
