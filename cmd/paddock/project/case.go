package project

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"paddock/internal/call"
)

// CaseSuffix ends the names of files with cases.
const CaseSuffix = ".case.json"

// Case is an input and what must come of it.
type Case struct {
	About         string            `json:"about"`
	Kind          string            `json:"kind"` // default auto; a pipeline's is in its manifest
	Input         json.RawMessage   `json:"input"`
	Configuration map[string]string `json:"configuration"` // laid over the tenant's secrets
	Serve         map[string]Reply  `json:"serve"`         // "METHOD /path?query" → what a server at ${serve} answers
	Repeat        int               `json:"repeat"`        // calls, of which the last one counts; default 1
	Expected      json.RawMessage   `json:"expected"`      // the value, or
	Error         *WantedError      `json:"error"`
	Steps         map[string]string `json:"steps"` // of a pipeline: function → outcome; those not named may have any

	Name string `json:"-"` // the file's without the suffix
	Path string `json:"-"`
}

// WantedError is a failure; what is not stated may be anything.
type WantedError struct {
	Kind    string `json:"kind,omitempty"`
	Name    string `json:"name,omitempty"`
	Message string `json:"message,omitempty"`
}

// Reply is what a case's server answers, and what it demands of the request.
type Reply struct {
	Headers map[string]string `json:"headers"` // of the request
	Body    json.RawMessage   `json:"body"`    // of the request
	Status  int               `json:"status"`  // default 200
	JSON    json.RawMessage   `json:"json"`
	Text    string            `json:"text"`
}

func readCase(file string, ofPipeline bool) (c Case, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, placed(text, dec, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return c, errors.New("something follows the case: one file holds one")
	}
	c.Path, c.Name, c.Repeat = file, strings.TrimSuffix(filepath.Base(file), CaseSuffix), max(c.Repeat, 1)
	return c, c.check(ofPipeline)
}

func (c *Case) check(ofPipeline bool) error {
	if (c.Expected == nil) == (c.Error == nil) {
		return errors.New(`give "expected" or "error", one of them`)
	}
	if _, ok := call.ParseKind(c.Kind); !ok {
		return fmt.Errorf(`"kind" %q: use function, rule, webtask or action`, c.Kind)
	}
	if !ofPipeline && len(c.Steps) > 0 {
		return errors.New(`"steps" is for cases of a pipeline`)
	}
	if ofPipeline && c.Kind != "" {
		return errors.New(`"kind" is for cases of one function: a pipeline's is in its manifest`)
	}
	for name, outcome := range c.Steps {
		if !slices.Contains(outcomes, call.StepOutcome(outcome)) {
			return fmt.Errorf(`"steps": outcome %q of %q: use one of %v`, outcome, name, outcomes)
		}
	}
	return nil
}

var outcomes = []call.StepOutcome{call.StepOK, call.StepSkipped, call.StepLastGood, call.StepRefused, call.StepFailed, call.StepDisabled}

// placed says on which line JSON is wrong.
func placed(text []byte, dec *json.Decoder, err error) error {
	at := dec.InputOffset()
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &typed):
		at = typed.Offset
	}
	if at = min(at, int64(len(text))); at <= 0 {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(text[:at], []byte{'\n'}), err)
}
