package redact

import (
	"strings"
	"testing"
)

var some = New(map[string]string{
	"KEY": "s3cr3t-k3y", "PEM": "-----BEGIN KEY-----\nMIIEpAIBAAKC\r\nAb/+90==\n-----END KEY-----\n", "QUOTED": "say \"hi\"\tand\\go",
	"SHORT": "abc", "LONGER": "s3cr3t-k3y-longer", "BORDER": "ababab-X",
})

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "",
		"nothing":                              "nothing",
		"abc is short":                         "abc is short",
		"s3cr3t-k3y":                           "[secret]",
		"a s3cr3t-k3y b s3cr3t-k3y":            "a [secret] b [secret]",
		"s3cr3t-k3ys3cr3t-k3y":                 "[secret]",
		"x=s3cr3t-k3y-longer;":                 "x=[secret];",
		"-----BEGIN KEY-----\nMIIEpAIBAAKC":    "[secret]\n[secret]",
		"line MIIEpAIBAAKC end":                "line [secret] end",
		`{"q":"say \"hi\"\tand\\go"}`:          `{"q":"[secret]"}`,
		`{ q: 'say "hi"\tand\\go' }`:           `{ q: '[secret]' }`,
		"say \"hi\"\tand\\go":                  "[secret]",
		"abababababab-X":                       "ababab[secret]",
		"ü s3cr3t-k3y \xff":                    "ü [secret] \xff",
		strings.Repeat("ab", 3) + "-Xababab-X": "[secret]",
	} {
		if got := some.Text(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if New(map[string]string{"a": "short"}) != nil {
		t.Error("a short value is looked for")
	}
	var none *Values
	if none.Text("s3cr3t-k3y") != "s3cr3t-k3y" || none.Stream().Next("s3cr3t-k3y") != "s3cr3t-k3y" {
		t.Error("nothing redacts something")
	}
}

// TestStreamCuts: wherever a text is cut in three, nothing is left of a value but a beginning that is too short to look for.
func TestStreamCuts(t *testing.T) {
	text := "begin s3cr3t-k3y-longer, abababab-X, s3cr3t-k3y. end"
	for i := range len(text) + 1 {
		for j := i; j <= len(text); j++ {
			s := some.Stream()
			joined := s.Next(text[:i]) + s.Next(text[i:j]) + s.Next(text[j:])
			for _, left := range []string{"t-k3y", "longer", "b-X", "k3y."} {
				if strings.Contains(joined, left) {
					t.Errorf("cut at %d and %d leaves %q: %q", i, j, left, joined)
				}
			}
			if !strings.HasPrefix(joined, "begin ") || !strings.HasSuffix(joined, ". end") {
				t.Errorf("cut at %d and %d takes too much: %q", i, j, joined)
			}
		}
	}
}

// TestStreamByteByByte: what leaks of a value is its beginning, shorter than what is looked for.
func TestStreamByteByByte(t *testing.T) {
	s := some.Stream()
	var out strings.Builder
	for _, c := range "x ababab-X y" {
		out.WriteString(s.Next(string(c)))
	}
	if got := out.String(); !strings.HasPrefix(got, "x ababa[secret]") || !strings.HasSuffix(got, "[secret] y") || strings.Contains(got, "-X") {
		t.Errorf("%q", got)
	}
}

// FuzzStream: pieces are redacted as safely as the whole, and text without values is left alone.
func FuzzStream(f *testing.F) {
	f.Add("s3cr3t-k3y", "hello s3cr3t-k3y", uint8(3), uint8(12))
	f.Add("aaaaaa", "aaaaaaaaaaa", uint8(5), uint8(6))
	f.Add("ab\ncdefgh", "ab\ncdefgh\n", uint8(1), uint8(4))
	f.Fuzz(func(t *testing.T, secret, text string, a, b uint8) {
		v := New(map[string]string{"S": secret})
		i := min(int(a), len(text))
		j := min(i+int(b), len(text))
		s := v.Stream()
		pieces := []string{s.Next(text[:i]), s.Next(text[i:j]), s.Next(text[j:])}
		if v == nil {
			if strings.Join(pieces, "") != text {
				t.Fatal("changed without values")
			}
			return
		}
		if v.Text(text) == text && !endsWithPart(secret, text[:i]) && !endsWithPart(secret, text[:j]) && !endsWithPart(secret, text) &&
			strings.Join(pieces, "") != text {
			t.Fatalf("changed without a value: %q", pieces)
		}
		for _, p := range pieces {
			if out := strings.ReplaceAll(p, Mask, "\x00"); strings.Contains(out, secret) {
				t.Fatalf("%q is left in %q", secret, pieces)
			}
		}
	})
}

// endsWithPart says whether text ends with a beginning of the secret, or of one of its lines or quoted forms, that is long
// enough to be masked.
func endsWithPart(secret, text string) bool {
	for _, p := range New(map[string]string{"S": secret}).patterns {
		for n := MinBytes; n < len(p.text); n++ {
			if strings.HasSuffix(text, p.text[:n]) {
				return true
			}
		}
	}
	return false
}

func BenchmarkLine(b *testing.B) {
	line := "2026-01-01T00:00:00Z request to https://api.example.com/v1/things answered 200 in 31 ms"
	values := map[string]string{}
	for _, n := range []string{"A", "B", "C", "D", "E"} {
		values[n] = strings.Repeat(n, 40)
	}
	s := New(values).Stream()
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Next(line)
	}
}
