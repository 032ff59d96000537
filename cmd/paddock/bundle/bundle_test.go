package bundle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var curated = []string{"lodash", "@auth0/rule-utilities"}

// project writes files and returns the path of the first.
func project(t *testing.T, files ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "project")
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
		"a rule that requires a file": {
			[]string{"rule.js", "// denies strangers\nfunction (user, context, callback) {\n  require('./lib/deny')(user);\n  callback(null, user, context);\n} // the end",
				"lib/deny.js", "module.exports = (user) => { throw new Error('denied ' + user) };"},
			[]string{"(function(user, context, callback) {\n  require_deny()(user);", "denied"},
		},
		"an arrow that requires a file": {
			[]string{"rule.js", "async ({ user }, ctx = f((1))) => { return require('./lib')(user); }", "lib.js", "module.exports = (user) => 'lib of ' + user;"},
			[]string{"module.exports = (async ({ user }, ctx = f(1)) =>", "lib of"},
		},
		"a rule in TypeScript": {
			[]string{"rule.ts", "async function (user: User, context: Context, callback: (e: Error | null) => void): Promise<void> {\n  callback(null);\n}"},
			[]string{"module.exports = (async function(user, context, callback)"},
		},
		"a typed arrow": {
			[]string{"rule.ts", "async (user: User, context: object): Promise<User> => {\n  return user as User;\n}"},
			[]string{"module.exports = (async (user, context) =>"},
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
		{[]string{"rule.js", "function (user, context, callback) { require('not-there');\n  require('nor-this') }"},
			[]string{"rule.js:1:46: Could not resolve \"not-there\"\n\nfunction (user,", "rule.js:2:11: Could not resolve \"nor-this\""}},
		{[]string{"rule.ts", "(user: User) => {\n  let x = ;\n}"}, []string{"rule.ts:2:11: Unexpected \";\""}},
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

func TestFilesAndParts(t *testing.T) {
	path := project(t, "code.ts", "import left from 'left';\nimport { lib } from '../lib';\nexport default () => lib(left());",
		"node_modules/left/package.json", `{"name":"left","main":"m.js"}`,
		"node_modules/left/m.js", "module.exports = () => require('@of/deep/x') + '"+strings.Repeat("long ", 99)+"';",
		"node_modules/left/node_modules/@of/deep/x.js", "module.exports = 1;",
		"../lib.ts", "export const lib = (x: string) => x;")
	r, err := File(path, curated)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	for i, want := range []string{"code.ts", "../lib.ts", "node_modules/left/m.js"} {
		if want = filepath.Join(dir, want); !slices.Contains(r.Files, want) || i == 0 && r.Files[0] != want {
			t.Errorf("%s is not in its place in %q", want, r.Files)
		}
	}
	names := []string{}
	for _, p := range r.Parts {
		names = append(names, p.Name)
	}
	if len(names) != 4 || names[0] != "left" || !slices.Contains(names, "@of/deep") || r.Parts[0].Bytes <= r.Parts[1].Bytes {
		t.Errorf("parts %v", r.Parts)
	}
	path = project(t, "rule.js", "function (u, c, callback) { require('./b'); callback() }", "b.js", "exports.b = 1")
	if r, err = File(path, curated); err != nil || len(r.Files) != 2 || r.Files[0] != path {
		t.Errorf("files %q of a rule, %v", r.Files, err)
	}
	path = project(t, "plain.js", "(a) => a")
	if r, err = File(path, curated); err != nil || len(r.Files) != 1 || r.Files[0] != path || r.Parts != nil {
		t.Errorf("files %q of plain code, %v", r.Files, err)
	}
}
