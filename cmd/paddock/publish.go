package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "paddock/proto/paddock/v1"
)

func (a *app) publishCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "publish DIR|FILE", Short: "Deploy a pipeline and all its files in one step", Args: args("DIR"),
		Long: `Deploy the files that DIR/pipeline.yaml names, each as a function, bundled like 'paddock deploy' does, and put the
pipeline, in one atomic step: a call runs all of the old or all of the new. Files whose code is the active version already make no
new one. If one of them does not compile, or somebody else has changed the pipeline meanwhile, nothing changes.`,
		Example: `  paddock publish login/ --note 'ticket 1234'
  paddock publish login/ --dry-run`,
	}
	note := c.Flags().String("note", "", "a remark kept with the versions that it makes")
	dry := c.Flags().Bool("dry-run", false, "only say what would change")
	return a.onCatalog(c, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		d, err := readPipelineDraft(args[0])
		if err != nil {
			return usageError("%w", err)
		}
		return a.publish(ctx, cl, d, *note, *dry)
	})
}

// published is the state before: what is compared with afterwards.
type published struct {
	pipeline  *pb.Pipeline // nil: there was none
	functions map[string]*pb.Function
}

func (a *app) publish(ctx context.Context, cl pb.CatalogClient, d *draft, note string, dry bool) error {
	req := &pb.PublishPipelineRequest{Name: d.name, Pipeline: pipelineOf(d.manifest), Functions: d.deployments(note)}
	before, err := lookAt(ctx, cl, req)
	if err != nil {
		return err
	}
	if dry {
		return a.printDryRun(req, before)
	}
	req.ExpectedRevision = before.pipeline.GetRevision()
	r, err := cl.PublishPipeline(ctx, req)
	switch {
	case err != nil:
		return err
	case a.jsonOut:
		return a.printProto(r)
	}
	after := map[string]*pb.Function{}
	for _, f := range r.GetFunctions() {
		after[f.GetName()] = f
	}
	what := "is published"
	if before.same(r) {
		what = "is as it was"
	}
	fmt.Fprintf(a.stdout, "%s %s (revision %d)\n", r.GetPipeline().GetName(), what, r.GetPipeline().GetRevision())
	return a.printChanges(r.GetPipeline(), before, func(f *pb.Function, name string) string {
		now, deployed := after[name]
		switch {
		case !deployed:
			return ""
		case f == nil:
			return fmt.Sprintf("new, version %d", now.GetVersion())
		case f.GetVersion() == now.GetVersion():
			return fmt.Sprintf("version %d, as before", now.GetVersion())
		}
		return fmt.Sprintf("version %d → %d", f.GetVersion(), now.GetVersion())
	})
}

// deployments are the functions that a pipeline's files become, each once.
func (d *draft) deployments(note string) (all []*pb.DeployFunctionRequest) {
	seen := map[string]bool{}
	for i, s := range d.manifest.Steps {
		source := d.pipeline.Steps[i].GetSource()
		if source == nil || seen[s.Function] {
			continue
		}
		seen[s.Function] = true
		all = append(all, &pb.DeployFunctionRequest{
			Name: s.Function, Source: source.GetCode(), Kind: string(d.manifest.Kind), Note: orDefault(s.Note, note),
		})
	}
	return all
}

// same says whether nothing has changed.
func (b *published) same(now *pb.PublishPipelineResponse) bool {
	for _, f := range now.GetFunctions() {
		if b.functions[f.GetName()].GetVersion() != f.GetVersion() {
			return false
		}
	}
	return b.pipeline.GetRevision() == now.GetPipeline().GetRevision()
}

// lookAt reads what a publication is going to change.
func lookAt(ctx context.Context, cl pb.CatalogClient, req *pb.PublishPipelineRequest) (*published, error) {
	b := &published{functions: map[string]*pb.Function{}}
	p, err := cl.GetPipeline(ctx, &pb.GetPipelineRequest{Name: req.GetName()})
	if err == nil {
		b.pipeline = p
	} else if status.Code(err) != codes.NotFound {
		return nil, err
	}
	for _, d := range req.GetFunctions() {
		f, err := cl.GetFunction(ctx, &pb.GetFunctionRequest{Name: d.GetName()})
		if err == nil {
			b.functions[d.GetName()] = f
		} else if status.Code(err) != codes.NotFound {
			return nil, err
		}
	}
	return b, nil
}

func (a *app) printDryRun(req *pb.PublishPipelineRequest, before *published) error {
	sums := map[string]string{}
	for _, d := range req.GetFunctions() {
		sum := sha256.Sum256(d.GetSource())
		sums[d.GetName()] = hex.EncodeToString(sum[:])
	}
	if a.jsonOut {
		return errors.New("--dry-run has no JSON form")
	}
	fmt.Fprintf(a.stdout, "%s would be published\n", req.GetName())
	return a.printChanges(req.GetPipeline(), before, func(f *pb.Function, name string) string {
		sum, deploys := sums[name]
		switch {
		case !deploys:
			return ""
		case f == nil:
			return "new"
		case f.GetHash() == sum:
			return fmt.Sprintf("version %d, as before", f.GetVersion())
		}
		return fmt.Sprintf("changed since version %d", f.GetVersion())
	})
}

// printChanges shows the steps with what became of each function, and the steps that are not there any more.
func (a *app) printChanges(now *pb.Pipeline, before *published, remark func(f *pb.Function, name string) string) error {
	was := map[string]string{}
	for _, s := range before.pipeline.GetSteps() {
		was[s.GetFunction()] = stepText(s)
	}
	err := table(a.stdout, stepRows(now, func(s *pb.PipelineStep) string {
		text := remark(before.functions[s.GetFunction()], s.GetFunction())
		old, there := was[s.GetFunction()]
		switch {
		case before.pipeline != nil && !there:
			text = strings.Join(nonEmpty(text, "new step"), ", ")
		case there && old != stepText(s):
			text = strings.Join(nonEmpty(text, "was "+old), ", ")
		}
		return text
	}))
	for _, s := range before.pipeline.GetSteps() {
		if !slices.ContainsFunc(now.GetSteps(), func(n *pb.PipelineStep) bool { return n.GetFunction() == s.GetFunction() }) {
			fmt.Fprintf(a.stdout, "gone: %s\n", s.GetFunction())
		}
	}
	return err
}

// stepText is how a step runs, but for its place.
func stepText(s *pb.PipelineStep) string {
	text := orDefault(s.GetOnFailure(), "fail")
	if s.GetTimeout() != nil {
		text += " within " + s.GetTimeout().AsDuration().String()
	}
	if s.GetDisabled() {
		text += ", disabled"
	}
	return text
}
