package proto

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
)

// TestOpenAPIIsValid is what a generator of clients would say first: references that lead somewhere, parameters that are those of the
// path, operations with names of their own. That all routes are in it is the router's test.
func TestOpenAPIIsValid(t *testing.T) {
	var doc openapi2.T
	if err := json.Unmarshal([]byte(OpenAPI()), &doc); err != nil {
		t.Fatal(err)
	}
	v3, err := openapi2conv.ToV3(&doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := v3.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	anyMethod := 0
	for path, item := range doc.Paths {
		if item.Get == nil || !strings.HasSuffix(item.Get.OperationID, "_get") {
			continue // not one that takes every method
		}
		anyMethod++
		for _, method := range []string{http.MethodHead, http.MethodOptions, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			if item.GetOperation(method) == nil {
				t.Errorf("%s takes every method, and the document has no %s", path, method)
			}
		}
	}
	if anyMethod < 5 {
		t.Errorf("%d paths take every method", anyMethod)
	}
}
