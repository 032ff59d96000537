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
	// Rest is why Version is not to be run, and counts as its failure: it rests in quarantine, or its container was lost. The
	// pool sets it, on a copy, for steps whose policy lets the pipeline go on.
	Rest *errs.Error
}

// Lenient says whether the pipeline can go on when the step fails.
func (s *Step) Lenient() bool {
	return s.OnFailure == OnFailureSkip || s.OnFailure == OnFailureLastGood && s.Fallback != nil
}

// Hash is of the code that runs: Fallback's if Version rests.
func (s *Step) Hash() string {
	if s.Rest != nil && s.Fallback != nil {
		return s.Fallback.Code.Hash
	}
	return s.Code.Hash
}

// Told returns how many of a pipeline's first steps the agent tells the host of, each before the next begins: up to the last
// that has a policy or a time of its own.
func Told(steps []Step) int {
	for i := len(steps); i > 0; i-- {
		if s := &steps[i-1]; s.Timeout > 0 || s.OnFailure == OnFailureSkip || s.OnFailure == OnFailureLastGood {
			return i
		}
	}
	return 0
}

// Resume says where a pipeline goes on whose container was lost.
type Resume struct {
	Step  int           // the first to run: those before it are over, and never run again
	State []byte        // as the last of them left it, JSON; nil: as the call's body says
	Took  time.Duration // of Step, before its container was lost
	// StandIn says that Step's Fallback had begun. It does not begin twice, as little as its version does.
	StandIn bool
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
