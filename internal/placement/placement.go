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
func Score(t tenant.ID, c Candidate) float64 { return score(c, uniform(t, c)) }

func score(c Candidate, h float64) float64 { return float64(max(c.Weight, 1)) / -math.Log(h) }

// uniform is a number in (0, 1) by both names: the hash of the controller's id, a zero byte and the tenant's id.
func uniform(t tenant.ID, c Candidate) float64 {
	var room [128]byte
	text := append(append(append(room[:0], c.ID...), 0), t...)
	return (float64(xxhash.Sum64(text)>>11) + 0.5) / (1 << 53)
}

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

// Top returns the indices of the n candidates with the highest scores for a tenant, in the order of Rank. For few of many it
// costs a tenth of Rank: a score is at most w / (1 - h), so that most need no logarithm, and nothing is sorted.
func Top(t tenant.ID, candidates []Candidate, n int) []int {
	n = min(n, len(candidates))
	if n <= 0 {
		return nil
	}
	order, scores := make([]int, 0, n), make([]float64, 0, n)
	for i, c := range candidates {
		h := uniform(t, c)
		if len(order) == n && float64(max(c.Weight, 1)) < scores[n-1]*(1-h) {
			continue
		}
		s := score(c, h)
		at := len(order)
		for at > 0 && (s > scores[at-1] || s == scores[at-1] && c.ID < candidates[order[at-1]].ID) {
			at--
		}
		if at == n {
			continue
		}
		if len(order) == n {
			order, scores = order[:n-1], scores[:n-1]
		}
		order, scores = slices.Insert(order, at, i), slices.Insert(scores, at, s)
	}
	return order
}
