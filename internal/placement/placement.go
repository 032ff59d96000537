// Package placement says which controller is a tenant's home, and in what order the others follow: weighted rendezvous
// hashing. Routers and controllers that know of the same controllers come to the same order without a word. It knows nothing of
// who is alive, full or allowed.
package placement

import (
	"cmp"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"paddock/internal/tenant"
)

// Candidate is a controller as far as placement goes. Weight is its configured capacity, never what happens to be free: load
// moves no homes. Below 1 it counts as 1.
type Candidate struct {
	ID     string
	Weight int
}

// Score is -w / ln(h), h being uniform in (0, 1) by both names. Who has a tenant's highest score is its home, with a probability
// in proportion to his weight; that a controller comes, goes or changes its weight moves only the tenants that it gains or
// loses.
//
// Sources: D. G. Thaler, C. V. Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996); C. Schindelhauer,
// G. Schomaker, "Weighted Distributed Hash Tables" (2005).
func Score(t tenant.ID, c Candidate) float64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(c.ID)
	_, _ = d.Write(between)
	_, _ = d.WriteString(string(t))
	h := (float64(d.Sum64()>>11) + 0.5) / (1 << 53)
	return float64(max(c.Weight, 1)) / -math.Log(h)
}

var between = []byte{0}

// Rank returns the indices of candidates in the order of their scores for a tenant, its home first. Equal scores go by name.
func Rank(t tenant.ID, candidates []Candidate) []int {
	scores, order := make([]float64, len(candidates)), make([]int, len(candidates))
	for i, c := range candidates {
		scores[i], order[i] = Score(t, c), i
	}
	slices.SortFunc(order, func(a, b int) int {
		if c := cmp.Compare(scores[b], scores[a]); c != 0 {
			return c
		}
		return cmp.Compare(candidates[a].ID, candidates[b].ID)
	})
	return order
}

// Above says whether a comes before b for a tenant.
func Above(t tenant.ID, a, b Candidate) bool {
	sa, sb := Score(t, a), Score(t, b)
	return sa > sb || sa == sb && a.ID < b.ID
}
