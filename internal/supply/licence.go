package main

import (
	"regexp"
	"slices"
	"strings"
)

// allowed are the licences under which parts may be shipped with Paddock.
var allowed = []string{
	"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MPL-2.0", "Unlicense",
}

// aliases are spellings of old packages.
var aliases = map[string]string{"MIT/X11": "MIT"}

// unstated are packages whose manifest says nothing, by name@version: a new version is looked at again.
var unstated = map[string]string{"window-size@0.1.0": "MIT"} // its LICENSE-MIT

// allowedExpression reads an SPDX expression: of alternatives one must be allowed, of what is joined all.
func allowedExpression(e string) bool {
	e = strings.TrimSpace(e)
	if a, ok := aliases[e]; ok {
		e = a
	}
	e = strings.TrimSuffix(strings.TrimPrefix(e, "("), ")")
	if strings.ContainsAny(e, "()") {
		return false // nested: look at it by hand
	}
	for _, one := range strings.Split(e, " OR ") {
		all := strings.Split(one, " AND ")
		if !slices.ContainsFunc(all, func(id string) bool { return !slices.Contains(allowed, strings.TrimSpace(id)) }) {
			return true
		}
	}
	return false
}

// spoken are phrases that only one licence has, in the order in which they are looked for: what must not be overlooked first.
var spoken = []struct{ phrase, id string }{
	{"gnu affero general public license", "AGPL"},
	{"gnu lesser general public license", "LGPL"},
	{"gnu general public license", "GPL"},
	{"server side public license", "SSPL"},
	{"business source license", "BUSL"},
	{"eclipse public license", "EPL"},
	{"common development and distribution license", "CDDL"},
	{"mozilla public license", "MPL-2.0"},
	{"apache license version 2.0", "Apache-2.0"},
	{"permission to use, copy, modify, and/or distribute this software for any purpose with or without fee", "ISC"},
	{"permission to use, copy, modify, and distribute this software for any purpose with or without fee", "ISC"},
	{"this is free and unencumbered software released into the public domain", "Unlicense"},
	{"permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"},
}

var spaces = regexp.MustCompile(`[\s/#*]+`)

// classify returns the SPDX id of a licence's text, "" if it has none of the phrases. A text that speaks of several licences
// counts as the one that asks for most.
func classify(text string) string {
	text = strings.ToLower(spaces.ReplaceAllString(text, " "))
	text = strings.ReplaceAll(text, "apache license, version 2.0", "apache license version 2.0")
	text = strings.ReplaceAll(text, "and or distribute", "and/or distribute") // the slash went with the spaces
	// MPL-2.0 names the GNU licences as secondary ones, in its own definitions.
	if strings.Contains(text, "mozilla public license") && strings.Contains(text, "secondary license") {
		return "MPL-2.0"
	}
	for _, s := range spoken {
		if strings.Contains(text, s.phrase) {
			return s.id
		}
	}
	if strings.Contains(text, "redistribution and use in source and binary forms") {
		if strings.Contains(text, "neither the name") {
			return "BSD-3-Clause"
		}
		return "BSD-2-Clause"
	}
	return ""
}
