// Package proto carries the OpenAPI document that is generated from the API's definitions. The definitions' own Go code
// is in proto/paddock/v1.
package proto

import _ "embed"

//go:embed openapi.swagger.json
var openAPI string

// OpenAPI returns the OpenAPI 2.0 document of the REST form of the management calls, JSON.
func OpenAPI() string { return openAPI }
