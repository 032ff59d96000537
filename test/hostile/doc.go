// Package hostile attacks the real service with code that means harm: one JavaScript file per attack in attacks/, run by
// each engine through the public API as a tenant of its own, while another tenant (the canary) calls without a pause.
// After every attack the host is looked at: the answer and its time, the canary, the service's processes, what is left of
// the attacker's container, where planted secrets turned up. For each group one setting is weakened and the oracle must
// see it. Without the build tag hostile only what stands for each group is tried. It has only tests, and says nothing of
// callers who attack without code; see docs/hostile.md.
package hostile
