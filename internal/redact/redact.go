// Package redact takes the values of secrets out of text that tenants' code wrote: log lines, error texts. It finds a value
// as it is, as JSON or inspect would quote it, and each line of a value of several lines. It does not find what code has
// encoded otherwise: it guards against accidents, not against code that wants to tell.
package redact

import (
	"encoding/json"
	"slices"
	"strings"
)

// Mask stands where a value was.
const Mask = "[secret]"

// MinBytes is the length from which a value is looked for. Shorter ones stand in too many words.
const MinBytes = 6

// Values finds a set of secrets' values. Nobody changes one; safe for concurrent use.
type Values struct{ patterns []pattern }

// pattern is a text to look for, with the border of each of its prefixes: how much of the prefix's end is a prefix too.
type pattern struct {
	text   string
	border []int32
}

// New returns Values, or nil if nothing in values is long enough.
func New(values map[string]string) *Values {
	var texts []string
	add := func(s string) {
		if len(s) >= MinBytes {
			texts = append(texts, s)
		}
	}
	for _, v := range values {
		if len(v) < MinBytes {
			continue
		}
		add(v)
		for _, form := range quoted(v) {
			add(form)
		}
		if strings.ContainsAny(v, "\r\n") {
			for line := range strings.Lines(v) {
				add(strings.Trim(line, " \t\r\n"))
			}
		}
	}
	if len(texts) == 0 {
		return nil
	}
	slices.Sort(texts)
	v := &Values{}
	for _, text := range slices.Compact(texts) {
		v.patterns = append(v.patterns, pattern{text, borders(text)})
	}
	return v
}

// Join returns Values that find what any of all finds, nil if that is nothing.
func Join(all ...*Values) *Values {
	joined := &Values{}
	for _, v := range all {
		if v != nil {
			joined.patterns = append(joined.patterns, v.patterns...)
		}
	}
	if len(joined.patterns) == 0 {
		return nil
	}
	slices.SortFunc(joined.patterns, func(a, b pattern) int { return strings.Compare(a.text, b.text) })
	joined.patterns = slices.CompactFunc(joined.patterns, func(a, b pattern) bool { return a.text == b.text })
	return joined
}

// quoted returns s as JSON and JavaScript write it between quotes, where that is another text.
func quoted(s string) []string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string cannot fail
	inner := strings.TrimSuffix(b.String(), "\n")
	inner = inner[1 : len(inner)-1]
	if inner == s {
		return nil
	}
	// util.inspect takes quotes that the text does not hold, and leaves the others as they are.
	return []string{inner, strings.ReplaceAll(inner, `\"`, `"`)}
}

func borders(s string) []int32 {
	b := make([]int32, len(s))
	for i, k := 1, int32(0); i < len(s); i++ {
		for k > 0 && s[i] != s[k] {
			k = b[k-1]
		}
		if s[i] == s[k] {
			k++
		}
		b[i] = k
	}
	return b
}

// next returns how much of p has been seen after another byte. A whole pattern counts as its longest border.
func (p *pattern) next(seen int32, c byte) int32 {
	if int(seen) == len(p.text) {
		seen = p.border[seen-1]
	}
	for seen > 0 && p.text[seen] != c {
		seen = p.border[seen-1]
	}
	if p.text[seen] == c {
		seen++
	}
	return seen
}

// Text returns s with Mask in place of every value. nil Values change nothing.
func (v *Values) Text(s string) string {
	if v == nil || len(s) < MinBytes {
		return s
	}
	var cuts spans
	for i := range v.patterns {
		cuts.find(s, v.patterns[i].text)
	}
	return cuts.apply(s)
}

// Stream redacts text that comes in pieces: a value that was cut between two is taken out of both, save for a beginning of
// less than MinBytes. Nothing is held back. Used by one goroutine at a time.
type Stream struct {
	values *Values
	seen   []int32 // by pattern: how much of it the text so far ends with
}

// Stream returns a Stream at its beginning. That of nil Values changes nothing.
func (v *Values) Stream() *Stream { return &Stream{values: v} }

// Next returns the next piece, redacted.
func (r *Stream) Next(s string) string {
	if r.values == nil || s == "" {
		return s
	}
	if r.seen == nil {
		r.seen = make([]int32, len(r.values.patterns))
	}
	var cuts spans
	for i := range r.values.patterns {
		p := &r.values.patterns[i]
		cuts.find(s, p.text)
		r.seen[i] = p.edges(s, r.seen[i], &cuts)
	}
	return cuts.apply(s)
}

// edges cuts what of p lies over the beginning of s or its end, and returns how much of p s ends with. seen is how much of p
// came before.
func (p *pattern) edges(s string, seen int32, cuts *spans) int32 {
	most := len(p.text) - 1
	if seen > 0 { // a value that began before ends within the first most bytes, or goes on over all of s
		at := seen
		for i := 0; i < min(most, len(s)); i++ {
			if at = p.next(at, s[i]); int(at) == len(p.text) {
				cuts.add(max(0, i+1-len(p.text)), i+1)
			}
		}
	}
	from := max(0, len(s)-most)
	if from > 0 {
		seen = 0 // what began before cannot reach over all of s
	}
	for i := from; i < len(s); i++ {
		seen = p.next(seen, s[i])
	}
	if int(seen) == len(p.text) {
		seen = p.border[seen-1]
	}
	if seen >= MinBytes {
		cuts.add(max(0, len(s)-int(seen)), len(s))
	}
	return seen
}

// spans are parts of a text, in no order.
type spans [][2]int

func (c *spans) add(from, to int) { *c = append(*c, [2]int{from, to}) }

func (c *spans) find(s, text string) {
	for at := 0; ; {
		i := strings.Index(s[at:], text)
		if i < 0 {
			return
		}
		c.add(at+i, at+i+len(text))
		at += i + 1 // two values may overlap
	}
}

// apply puts one Mask in place of each run of cuts.
func (c spans) apply(s string) string {
	if len(c) == 0 {
		return s
	}
	slices.SortFunc(c, func(a, b [2]int) int { return a[0] - b[0] })
	var b strings.Builder
	done, end := 0, -1
	for _, cut := range c {
		if cut[0] > end { // not joined to the one before
			b.WriteString(s[done:cut[0]])
			b.WriteString(Mask)
		}
		end = max(end, cut[1])
		done = end
	}
	b.WriteString(s[done:])
	return b.String()
}
