// Package proto carries the OpenAPI document of what is served over HTTP. The definitions' own Go code is in
// proto/paddock/v1.
package proto

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
)

// management is generated from the API's definitions; calls is written by hand: calls, logs and health are no REST form of
// a message.
var (
	//go:embed openapi.swagger.json
	management []byte
	//go:embed calls.swagger.json
	calls []byte
)

// errorSchema is what generated operations say that failures look like; over HTTP they are problem documents.
const errorSchema = "rpcStatus"

// OpenAPI returns the OpenAPI 2.0 document, JSON.
func OpenAPI() string {
	doc, more := map[string]any{}, map[string]any{}
	for to, from := range map[*map[string]any][]byte{&doc: management, &more: calls} {
		if err := json.Unmarshal(from, to); err != nil {
			panic(fmt.Sprintf("proto: an embedded document: %v", err)) // a test reads them
		}
	}
	for _, key := range []string{"paths", "definitions"} {
		all := doc[key].(map[string]any)
		maps.Copy(all, more[key].(map[string]any))
		more[key] = all
	}
	definitions := more["definitions"].(map[string]any)
	definitions[errorSchema] = definitions["problem"]
	maps.Copy(doc, more)
	out, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Sprintf("proto: %v", err))
	}
	return string(out)
}
