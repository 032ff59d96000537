package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"paddock/internal/errs"
)

// complaint says in the caller's words why JSON could not be decoded: the decoders speak of Go's types.
func complaint(err error) string {
	var wrong *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return fmt.Sprintf("it holds no object (%s)", wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Sprintf("%q must not be of type %s", wrong.Field, wrong.Value)
	case errors.As(err, &syntax):
		return fmt.Sprintf("%s (byte %d)", syntax, syntax.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// undecoded is the refusal of a management request whose body or query is not what the method takes. err is the gateway's.
func (x *exchange) undecoded(err error) error {
	if x.rule.resource == "secrets" { // the decoder quotes what it does not like, which may be the value
		return errs.New(errs.Invalid, "the request cannot be read: send {\"value\": \"…\", \"function\": \"…\"}, the value as a string")
	}
	said := strings.TrimPrefix(strings.ReplaceAll(errs.From(err).Message, "\u00a0", " "), "proto: ")
	if said == io.ErrUnexpectedEOF.Error() {
		said = complaint(io.ErrUnexpectedEOF)
	}
	remedy := "GET /openapi.json describes it"
	if x.rule.http == deployRoute {
		remedy = `send source text with Content-Type: application/javascript, or JSON with "source" in base64`
	}
	return errs.New(errs.Invalid, "the request cannot be read: %s; %s", said, remedy)
}
