package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/cmd/paddock/project"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// tryFlags are the flags of `try`.
type tryFlags struct {
	callFlags
	as, kind, call string
	compare        bool
}

func (a *app) tryCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "try FILE|DIR", Short: "Run a draft against an input, recorded or given, without publishing it", Args: args("FILE"),
		Long: `Run the code in FILE, or the pipeline of a manifest, as it stands on disk: in a sandbox of the tenant, as if it were the
function of that name and with its secrets, without storing anything. The input is given, or that of an earlier call, if the
tenant has inputs recorded ('paddock calls' shows which).

With --compare the active version gets the same input, and the difference of the two answers is shown. Both really run: what
they do to other systems happens twice.`,
		Example: `  paddock try rule.js --input @login.json
  paddock try rule.js --call 5b0c8f3e9a6d47f0a1b2c3d4e5f60718 --compare
  paddock try src/check.ts --as check --input '{"url":"https://shop.example"}' --compare
  paddock try login/ --input @login.json --compare`,
	}
	flags := addCallFlags(c)
	var f tryFlags
	c.Flags().StringVar(&f.as, "as", "", "the function, or pipeline, whose draft it is (default: the file's name, or the manifest's)")
	c.Flags().StringVar(&f.kind, "kind", "", "function, rule, webtask or action (default: that of the function, else Paddock looks at the code)")
	c.Flags().StringVar(&f.call, "call", "", "take the input of this earlier call: its id, or the beginning of it")
	c.Flags().BoolVar(&f.compare, "compare", false, "run the active version as well, and show how the answers differ")
	c.MarkFlagsMutuallyExclusive("call", "input")
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		f.callFlags = flags()
		d, err := readDraftOf(args[0])
		if err != nil {
			return usageError("%w", err)
		}
		d.rename(f.as)
		return a.withTenant(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn, _ string) error {
			return a.try(ctx, cc, d, &f)
		})
	})
	return c
}

// readDraftOf reads a file, a manifest, or the manifest of a folder.
func readDraftOf(path string) (*draft, error) {
	if project.IsCode(path) {
		return readDraft(path)
	}
	return readPipelineDraft(path)
}

func (a *app) try(ctx context.Context, cc *grpc.ClientConn, d *draft, f *tryFlags) error {
	input, err := a.inputOf(ctx, cc, f)
	if err != nil {
		return err
	}
	prepare := func(req *pb.InvokeRequest) *pb.InvokeRequest {
		req.Input, req.Fresh, req.Idempotent, req.WithLogs = input, f.fresh, f.idempotent, true
		if f.timeoutSet {
			req.Timeout = durationpb.New(f.timeout)
		}
		return req
	}
	kind := f.kind
	if kind == "" && !d.isPipeline() {
		kind = kindOf(ctx, cc, d.name)
	}
	began := time.Now()
	resp, err := a.exchangeShowing(ctx, cc, prepare(d.request(kind, nil)))
	if err != nil {
		return err
	}
	if !f.compare {
		return a.answer(resp, time.Since(began))
	}
	active := &pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: d.name}}
	if d.isPipeline() {
		active.Target = &pb.InvokeRequest_Pipeline{Pipeline: d.name}
	}
	other, err := exchange(ctx, cc, prepare(active), func(*pb.LogLine) {})
	if err != nil {
		return err
	}
	if e := other.GetError(); e != nil && e.GetFault() != string(errs.FaultTenant) { // it did not run: nothing to compare with
		return &exitError{code: codeOfFault(errs.Fault(e.GetFault())), err: fmt.Errorf("the active version: %s", e.GetMessage())}
	}
	return a.compare(d, resp, other)
}

// inputOf is the input that was given, or that of an earlier call.
func (a *app) inputOf(ctx context.Context, cc *grpc.ClientConn, f *tryFlags) ([]byte, error) {
	if f.call == "" {
		return a.readInput(f.input)
	}
	logs := pb.NewLogsClient(cc)
	id, err := a.wholeID(ctx, logs, f.call)
	if err != nil {
		return nil, err
	}
	r, err := logs.GetCall(ctx, &pb.GetCallRequest{Id: id})
	if err != nil {
		return nil, err
	}
	if !r.GetCall().GetInputKept() {
		return nil, usageError("call %s: its input was not recorded: the operator has to allow that for the tenant "+
			"(paddock tenants update TENANT --record-inputs 100), and inputs of HTTP-shaped calls never are; give one with --input", f.call)
	}
	return r.GetInput(), nil
}

// kindOf is the kind that the deployed function was given: a draft of it is called alike. "" if there is none.
func kindOf(ctx context.Context, cc *grpc.ClientConn, name string) string {
	f, err := pb.NewCatalogClient(cc).GetFunction(ctx, &pb.GetFunctionRequest{Name: name})
	if err != nil {
		return ""
	}
	return f.GetKind()
}

// comparison is what --json prints of --compare.
type comparison struct {
	Same   bool       `json:"same"`
	Diff   string     `json:"diff,omitempty"`
	Draft  jsonAnswer `json:"draft"`
	Active jsonAnswer `json:"active"`
}

// compare shows how a draft's answer differs from that of the active version. It fails if the draft does.
func (a *app) compare(d *draft, draft, active *pb.InvokeResponse) error {
	diff := diffJSON(comparable(active), comparable(draft))
	if diff != "" {
		diff = strings.TrimPrefix(diff, diffHead)
	}
	switch {
	case a.jsonOut:
		if err := a.printJSON(comparison{diff == "", diff, answerJSON(draft), answerJSON(active)}); err != nil {
			return err
		}
	case diff == "":
		fmt.Fprintf(a.stdout, "the same answer as %s (%s, the draft %s):\n", d.name, runTime(active), runTime(draft))
		fmt.Fprintln(a.stdout, string(comparable(draft)))
	default:
		fmt.Fprintf(a.stdout, "- %s (%s), + %s (%s):\n%s\n", d.name, runTime(active), d.path, runTime(draft), a.colourDiff(a.safeText(diff)))
	}
	if !a.jsonOut {
		fmt.Fprint(a.stderr, a.stepsText(draft.GetSteps()))
	}
	if e := draft.GetError(); e != nil {
		return &exitError{code: exitUser, err: fmt.Errorf("%s", e.GetMessage()), silent: true}
	}
	return nil
}

func runTime(r *pb.InvokeResponse) string {
	return brief(time.Duration(r.GetStages().GetRunUs()) * time.Microsecond)
}

// comparable is an answer as JSON: the value, or what of a failure does not depend on where in the code it came from.
func comparable(r *pb.InvokeResponse) []byte {
	e := r.GetError()
	if e == nil {
		return r.GetOutput()
	}
	failure := map[string]string{"kind": e.GetKind(), "message": e.GetMessage()}
	if th := e.GetThrown(); th != nil {
		failure["name"], failure["message"] = th.GetName(), th.GetMessage()
	}
	b, err := json.Marshal(map[string]any{"error": failure})
	if err != nil {
		return []byte("null")
	}
	return b
}
