package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Genesis stands for the hash of the line before the first.
var Genesis = strings.Repeat("0", hashText)

const (
	hashText = 2 * sha256.Size
	// A line ends in hashOpen, the hash and hashClose. What stands before hashOpen is what the hash is of, so that any tool
	// can recompute it: sha256sum of the line up to there.
	hashOpen  = `,"hash":"`
	hashClose = `"}`
	hashTail  = len(hashOpen) + hashText + len(hashClose)

	// maxLine is more than any line that Append writes.
	maxLine = 32 << 10
)

// appendLine appends r's line with its newline to b, and puts the hash into r.
func appendLine(b []byte, r *Record) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return b, err
	}
	text := bytes.TrimSuffix(body.Bytes(), []byte("}\n"))
	r.Hash = hashOf(text)
	b = append(b, text...)
	b = append(b, hashOpen...)
	b = append(b, r.Hash...)
	return append(b, hashClose+"\n"...), nil
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

var (
	errShape = errors.New("it is not a line of this log")
	errHash  = errors.New("its hash does not fit what it says")
)

// parseLine reads a line without its newline. With errHash the record is what the line claims.
func parseLine(line []byte) (r Record, err error) {
	at := len(line) - hashTail
	if at <= 0 || len(line) > maxLine || string(line[at:at+len(hashOpen)]) != hashOpen || !bytes.HasSuffix(line, []byte(hashClose)) {
		return r, errShape
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("%w: %v", errShape, err)
	}
	r.Hash = string(line[at+len(hashOpen) : len(line)-len(hashClose)])
	if r.Seq < 1 || !isHash(r.Hash) || !isHash(r.Prev) {
		return r, errShape
	}
	if hashOf(line[:at]) != r.Hash {
		return r, errHash
	}
	return r, nil
}

func isHash(s string) bool {
	if len(s) != hashText {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
