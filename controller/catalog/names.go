package catalog

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"paddock/internal/errs"
)

// '@' stays out of names: "name@version" names a version.
var functionName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// CheckFunctionName says whether name can name a function: 1 to 64 of A-Z, a-z, 0-9, '_', '-' and '.', not starting with
// '-' or '.'.
func CheckFunctionName(name string) error {
	if !functionName.MatchString(name) {
		return errs.New(errs.Invalid,
			"function name %.80q: use 1 to 64 of A-Z, a-z, 0-9, '_', '-' and '.', not starting with '-' or '.'", name)
	}
	return nil
}

// CheckPipelineName says whether name can name a pipeline; the form is that of functions.
func CheckPipelineName(name string) error {
	if !functionName.MatchString(name) {
		return errs.New(errs.Invalid,
			"pipeline name %.80q: use 1 to 64 of A-Z, a-z, 0-9, '_', '-' and '.', not starting with '-' or '.'", name)
	}
	return nil
}

// parseRef splits "name" or "name@version"; version 0 is the one that unpinned calls get.
func parseRef(ref string) (name string, version int64, err error) {
	name, number, pinned := strings.Cut(ref, "@")
	if err := CheckFunctionName(name); err != nil {
		return "", 0, err
	}
	if !pinned {
		return name, 0, nil
	}
	version, err = strconv.ParseInt(number, 10, 64)
	if err != nil || version < 1 || strconv.FormatInt(version, 10) != number { // "+3" and "03" are not a second name of 3
		return "", 0, errs.New(errs.Invalid, "function %.80q: the version after @ is a number from 1", ref)
	}
	return name, version, nil
}

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,127}$`)

// CheckSecretName says whether name can name a secret: 1 to 128 of A-Z, a-z, 0-9, '_', '-' and '.', beginning with a letter
// or '_'.
func CheckSecretName(name string) error {
	if !secretName.MatchString(name) || name == "__proto__" {
		return errs.New(errs.Invalid,
			"secret name %.80q: use 1 to 128 of A-Z, a-z, 0-9, '_', '-' and '.', beginning with a letter or '_'", name)
	}
	return nil
}

const maxNoteBytes = 256

func checkNote(note string) error {
	if len(note) > maxNoteBytes || !utf8.ValidString(note) || strings.ContainsFunc(note, unicode.IsControl) {
		return errs.New(errs.Invalid, "a note is at most %d bytes of one line of UTF-8", maxNoteBytes)
	}
	return nil
}
