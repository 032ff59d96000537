// Package hostile attacks the real service with code that means harm: one JavaScript file per attack in attacks/, run by
// each engine through the public HTTP API as a tenant of its own, while another tenant (the canary) calls without a
// pause. After every attack the host is looked at: the answer and its time, the canary, the service's processes, what is
// left of the attacker's container, where planted secrets turned up. For each group one setting is weakened and the
// oracle must see it. It has only tests, and says nothing of what callers without code can do.
package hostile
