package router

import (
	"strings"

	"paddock/internal/errs"
)

// validText makes UTF-8 of a tenant's text; what is not is replaced.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func validTexts(all []string) []string {
	for i, s := range all {
		if v := validText(s); v != s {
			fixed := append([]string(nil), all...)
			for j := i; j < len(fixed); j++ {
				fixed[j] = validText(fixed[j])
			}
			return fixed
		}
	}
	return all
}

// validThrown returns t with UTF-8 texts.
func validThrown(t errs.Thrown) errs.Thrown {
	t.Name, t.Message, t.Stack = validText(t.Name), validText(t.Message), validText(t.Stack)
	t.Code, t.Excerpt = validText(t.Code), validText(t.Excerpt)
	return t
}
