package placement

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"paddock/internal/tenant"
)

func controllers(n, weight int) []Candidate {
	all := make([]Candidate, n)
	for i := range all {
		all[i] = Candidate{fmt.Sprintf("%08x", i*2654435761), weight}
	}
	return all
}

func home(t tenant.ID, all []Candidate) string { return all[Rank(t, all)[0]].ID }

func tenants(n int) []tenant.ID {
	all := make([]tenant.ID, n)
	for i := range all {
		all[i] = tenant.ID(fmt.Sprintf("tenant-%d", i))
	}
	return all
}

// Homes are shared out by weight.
func TestLoadFollowsWeight(t *testing.T) {
	all := controllers(9, 100)
	all[0].Weight, all[1].Weight = 200, 50
	const n = 50_000
	count := map[string]int{}
	for _, id := range tenants(n) {
		count[home(id, all)]++
	}
	for _, c := range all {
		want := float64(n) * float64(c.Weight) / 950
		if got := float64(count[c.ID]); math.Abs(got-want) > 5*math.Sqrt(want) {
			t.Errorf("%s with weight %d is home to %.0f, expected about %.0f", c.ID, c.Weight, got, want)
		}
	}
}

// Only the tenants of the one that goes move, and only to the one that comes; a heavier one only takes.
func TestChangesMoveNoOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := controllers(rapid.IntRange(2, 12).Draw(t, "controllers"), rapid.IntRange(1, 500).Draw(t, "weight"))
		i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
		id := tenant.ID(rapid.StringMatching(`[a-z0-9]{1,20}`).Draw(t, "tenant"))
		before := home(id, all)
		without := append(append([]Candidate{}, all[:i]...), all[i+1:]...)
		if after := home(id, without); after != before && before != all[i].ID {
			t.Fatalf("%s moved from %s to %s when %s went", id, before, after, all[i].ID)
		}
		heavier := append([]Candidate{}, all...)
		heavier[i].Weight *= 3
		if after := home(id, heavier); after != before && after != all[i].ID {
			t.Fatalf("%s moved from %s to %s when %s grew", id, before, after, all[i].ID)
		}
		order := Rank(id, all)
		if n := rapid.IntRange(0, len(all)+1).Draw(t, "few"); !slices.Equal(Top(id, heavier, n), Rank(id, heavier)[:min(n, len(all))]) {
			t.Fatalf("the first %d are %v of %v", n, Top(id, heavier, n), Rank(id, heavier))
		}
		seen := map[int]bool{}
		for k, at := range order {
			if seen[at] {
				t.Fatalf("%d is there twice", at)
			}
			seen[at] = true
			if k > 0 && !Above(id, all[order[k-1]], all[at]) {
				t.Fatalf("%v does not stand above %v", all[order[k-1]], all[at])
			}
		}
	})
}

// A home is part of the contract between versions: who changes the hash moves every tenant of every cluster at once.
func TestHomesAreForEver(t *testing.T) {
	all := []Candidate{{"00000001", 100}, {"00000002", 100}, {"00000003", 50}}
	got := ""
	for _, id := range []tenant.ID{"acme", "globex", "initech", "umbrella", "hooli", "a", "b", "c"} {
		got += home(id, all)[7:]
	}
	if want := "21113112"; got != want {
		t.Errorf("homes are %s, were %s", got, want)
	}
}

func BenchmarkRank(b *testing.B) {
	all := controllers(1000, 100)
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			Rank("acme", all)
		}
	})
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			Top("acme", all, 16)
		}
	})
}
