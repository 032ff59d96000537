package main

import (
	"encoding/json"
	"time"

	pb "paddock/proto/paddock/v1"
)

// answer JSON: what --json prints of a call. The value stands in it as JSON, not as base64 text.
type jsonAnswer struct {
	CallID    string          `json:"callId"`
	Output    json.RawMessage `json:"output,omitempty"`
	Error     *jsonError      `json:"error,omitempty"`
	Stages    jsonStages      `json:"stages"`
	Start     string          `json:"start,omitempty"`
	Isolation string          `json:"isolation,omitempty"`
	Container string          `json:"container,omitempty"`
	Logs      []jsonLog       `json:"logs"`
	Warnings  []string        `json:"warnings,omitempty"`
	Steps     []jsonStep      `json:"steps,omitempty"`
	Revision  int64           `json:"revision,omitempty"`
}

// jsonStep is what became of one step of a pipeline.
type jsonStep struct {
	Function string     `json:"function"`
	Version  int64      `json:"version,omitempty"`
	Outcome  string     `json:"outcome"`
	RunUs    int64      `json:"runUs"`
	Fallback int64      `json:"fallback,omitempty"`
	Error    *jsonError `json:"error,omitempty"`
	Logs     []jsonLog  `json:"logs,omitempty"`
}

type jsonError struct {
	Kind       string      `json:"kind"`
	Message    string      `json:"message"`
	Started    string      `json:"started,omitempty"`
	Fault      string      `json:"fault,omitempty"`
	Cause      string      `json:"cause,omitempty"`
	Thrown     *jsonThrown `json:"thrown,omitempty"`
	RetryAfter string      `json:"retryAfter,omitempty"`
}

type jsonThrown struct {
	Name    string `json:"name,omitempty"`
	Message string `json:"message"`
	Stack   string `json:"stack,omitempty"`
	Code    string `json:"code,omitempty"`
	Denied  bool   `json:"denied,omitempty"`
	Line    int32  `json:"line,omitempty"`
	Column  int32  `json:"column,omitempty"`
	Excerpt string `json:"excerpt,omitempty"`
}

// jsonStages is in microseconds.
type jsonStages struct {
	Queue  int64 `json:"queueUs"`
	Assign int64 `json:"assignUs"`
	Load   int64 `json:"loadUs"`
	Run    int64 `json:"runUs"`
	Total  int64 `json:"totalUs"`
}

type jsonLog struct {
	Time      time.Time `json:"time"`
	Level     string    `json:"level"`
	Text      string    `json:"text"`
	Call      string    `json:"call,omitempty"`
	Function  string    `json:"function,omitempty"`
	Container string    `json:"container,omitempty"`
	Dropped   int64     `json:"dropped,omitempty"`
}

func answerJSON(r *pb.InvokeResponse) jsonAnswer {
	s := r.GetStages()
	out := jsonAnswer{
		CallID: r.GetCallId(), Start: r.GetStart(), Isolation: r.GetIsolation(), Container: r.GetContainerId(),
		Warnings: r.GetWarnings(), Logs: []jsonLog{}, Steps: stepsJSON(r.GetSteps()), Revision: r.GetRevision(),
		Stages: jsonStages{s.GetQueueUs(), s.GetAssignUs(), s.GetLoadUs(), s.GetRunUs(), s.GetTotalUs()},
	}
	for _, l := range r.GetLogs() {
		out.Logs = append(out.Logs, logJSON(l))
	}
	if r.GetError() != nil {
		out.Error = errorJSON(r.GetError())
	} else if out.Output = r.GetOutput(); !json.Valid(out.Output) {
		out.Output, _ = json.Marshal(string(r.GetOutput()))
	}
	return out
}

func stepsJSON(all []*pb.StepResult) (out []jsonStep) {
	for _, s := range all {
		one := jsonStep{
			Function: s.GetFunction(), Version: s.GetVersion(), Outcome: s.GetOutcome(), RunUs: s.GetRunUs(), Fallback: s.GetFallback(),
		}
		if s.GetError() != nil {
			one.Error = errorJSON(s.GetError())
		}
		for _, l := range s.GetLogs() {
			one.Logs = append(one.Logs, logJSON(l))
		}
		out = append(out, one)
	}
	return out
}

func errorJSON(e *pb.CallError) *jsonError {
	out := &jsonError{
		Kind: e.GetKind(), Message: e.GetMessage(), Started: e.GetStarted(), Fault: e.GetFault(), Cause: e.GetCause(),
	}
	if e.GetRetryAfter() != nil {
		out.RetryAfter = e.GetRetryAfter().AsDuration().String()
	}
	if th := e.GetThrown(); th != nil {
		out.Thrown = &jsonThrown{
			Name: th.GetName(), Message: th.GetMessage(), Stack: th.GetStack(), Code: th.GetCode(), Denied: th.GetDenied(),
			Line: th.GetLine(), Column: th.GetColumn(), Excerpt: th.GetExcerpt(),
		}
	}
	return out
}

func logJSON(l *pb.LogLine) jsonLog {
	return jsonLog{
		Time: l.GetTime().AsTime(), Level: l.GetLevel(), Text: l.GetText(), Call: l.GetCallId(), Function: l.GetFunction(),
		Container: l.GetContainerId(), Dropped: l.GetDropped(),
	}
}
