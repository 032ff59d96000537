package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var curated = []string{"lodash", "@auth0/rule-utilities"}

// project writes files and returns the path of the first.
func project(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, files[0])
}

func TestPlainCodeStaysAsItIs(t *testing.T) {
	for _, text := range []string{
		"module.exports = (input) => input\r\n",
		"function (user, context, callback) {\n  const _ = require('lodash@4.17.10');\n  callback(null, user, context);\n} // the end",
		"function named(user, context, callback) { require('crypto'); callback() }",
		"const u = require('@auth0/rule-utilities@0.2.0/lib/x'); exports.onExecutePostLogin = async () => {}",
		"return require('node:os').EOL",
		"this is ( no code",
		"",
	} {
		r, err := File(project(t, "code.js", text), curated)
		if err != nil || r.Bundled || string(r.Code) != text {
			t.Errorf("%q became %q, %v", text, r.Code, err)
		}
	}
}

func TestBundles(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		has   []string
	}{
		"TypeScript": {
			[]string{"rule.ts", "interface User { email: string }\nexport default (user: User, context: unknown, callback: Function) => callback(null, user);"},
			[]string{"(user, context, callback) =>", "module.exports", "sourceMappingURL=data:application/json;base64,"},
		},
		"a file that is required": {
			[]string{"code.js", "const { twice } = require('./lib/twice');\nmodule.exports = (n) => twice(n);",
				"lib/twice.js", "exports.twice = (n) => 2 * n;"},
			[]string{"2 * n"},
		},
		"an installed module": {
			[]string{"code.js", "import left from 'left';\nimport _ from 'lodash@4';\nimport os from 'node:os';\nexport default () => left(_, os);",
				"node_modules/left/package.json", `{"name":"left","main":"m.js"}`, "node_modules/left/m.js", "module.exports = () => 'from the module';"},
			[]string{"from the module", `require("lodash@4")`, `require("node:os")`},
		},
		"an ES module by itself": {[]string{"code.mjs", "export const onExecutePostLogin = async (event, api) => {};"},
			[]string{"onExecutePostLogin", "(event, api)"}},
	} {
		r, err := File(project(t, c.files...), curated)
		if err != nil || !r.Bundled {
			t.Errorf("%s: %v, bundled %t", name, err, r.Bundled)
		}
		for _, text := range c.has {
			if !strings.Contains(string(r.Code), text) {
				t.Errorf("%s: %q is missing in\n%s", name, text, r.Code)
			}
		}
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  []string
	}{
		{[]string{"rule.ts", "export default (a) => {\n  let x = ;\n}"}, []string{"rule.ts:2:11: Unexpected \";\"", "let x = ;"}},
		{[]string{"code.js", "const x = require('not-there');\nmodule.exports = x;"},
			[]string{"code.js:1:19: Could not resolve \"not-there\"", "npm install it beside the code"}},
		{[]string{"code.js", "import './nope.js'"}, []string{"Could not resolve \"./nope.js\""}},
		{[]string{"code.ts", "import './a'; import './b'; import './c'; import './d'; import './e'; import './f'; import './g'"}, []string{"and 2 more"}},
	} {
		r, err := File(project(t, c.files...), curated)
		if err == nil {
			t.Errorf("%q became %q", c.files[1], r.Code)
			continue
		}
		for _, text := range c.want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q is missing in: %v", text, err)
			}
		}
	}
	if _, err := File(filepath.Join(t.TempDir(), "none.js"), curated); err == nil {
		t.Error("a file that is not there")
	}
}
