package main

import (
	"paddock/pool/egress"
)

// checkEgressRule judges a rule of a policy before it is stored.
func checkEgressRule(rule string) error {
	_, err := egress.ParseRule(rule)
	return err
}
