package call

import (
	"time"

	"paddock/internal/errs"
)

// FailurePolicy says what becomes of a pipeline when a step fails. A refusal is no failure: nothing turns it into anything else.
type FailurePolicy string

// The policies.
const (
	OnFailureFail     FailurePolicy = "fail"      // the pipeline fails with it; the default
	OnFailureSkip     FailurePolicy = "skip"      // it goes on as if the step had not run, with a warning
	OnFailureLastGood FailurePolicy = "last_good" // an earlier version that has proved itself runs instead: code that runs twice
)

// ParseFailurePolicy returns the policy named s ("" is fail) and whether there is one.
func ParseFailurePolicy(s string) (FailurePolicy, bool) {
	switch p := FailurePolicy(s); p {
	case "":
		return OnFailureFail, true
	case OnFailureFail, OnFailureSkip, OnFailureLastGood:
		return p, true
	}
	return "", false
}

// Step is one function of a pipeline.
type Step struct {
	Function   string
	Version    int64
	Code       Code
	Timeout    time.Duration // of this step; 0 = only the call's
	OnFailure  FailurePolicy
	Secrets    map[string]string // what this function gets
	SecretsRev string
	// Fallback is the version that runs if this one fails, with OnFailureLastGood; nil if none has proved itself.
	Fallback *Fallback
}

// Fallback is an earlier version of a step's function.
type Fallback struct {
	Version int64
	Code    Code
}

// StepOutcome is what became of a step.
type StepOutcome string

// The outcomes.
const (
	StepOK       StepOutcome = "ok"
	StepSkipped  StepOutcome = "skipped"   // its failure was
	StepLastGood StepOutcome = "last_good" // Fallback ran instead, and well
	StepRefused  StepOutcome = "refused"   // UnauthorizedError or api.access.deny: the pipeline ends
	StepFailed   StepOutcome = "failed"    // the pipeline ends
	StepDisabled StepOutcome = "disabled"
)

// StepResult is what became of one step that was begun, or is disabled.
type StepResult struct {
	Function string
	Version  int64
	Outcome  StepOutcome
	Took     time.Duration
	Err      *errs.Error // with skipped, last_good, refused and failed
	Fallback int64       // the version that ran, with last_good
}
