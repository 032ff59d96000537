//go:build trace

package trace

import (
	"fmt"
	"slices"
)

// judge counts the kinds of all touches and returns what must not have been touched.
func (p places) judge(tr *traced, ours func(int) bool) (kinds map[string]int, wrong []string) {
	kinds = map[string]int{}
	for _, t := range tr.touches {
		kind, err := p.kind(t.path, ours)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s by %d: %v", t.call, t.pid, err))
			continue
		}
		kinds[kind]++
	}
	for _, call := range tr.foreign {
		wrong = append(wrong, "a call that leaves its own mount namespace: "+call)
	}
	slices.Sort(wrong)
	return kinds, slices.Compact(wrong)
}
