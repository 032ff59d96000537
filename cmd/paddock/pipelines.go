package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"paddock/cmd/paddock/project"
	"paddock/internal/call"
	pb "paddock/proto/paddock/v1"
)

func (a *app) pipelinesCommand() *cobra.Command {
	invoke := &cobra.Command{
		Use: "invoke NAME", Short: "Call a pipeline and print what it returns", Args: args("NAME"),
		Example:           `  paddock pipelines invoke login --input '{"user":{"email":"a@b.c"},"context":{}}'`,
		ValidArgsFunction: a.complete(pipelineNames),
	}
	flags := addCallFlags(invoke)
	invoke.RunE = runE(func(cmd *cobra.Command, args []string) error {
		return a.call(cmd.Context(), flags(), &pb.InvokeRequest{Target: &pb.InvokeRequest_Pipeline{Pipeline: args[0]}})
	})
	return group(&cobra.Command{
		Use: "pipelines", Short: "Pipelines: functions that run one after the other as one call", Aliases: []string{"pipeline"},
		Long: `A pipeline is an ordered list of functions that run as one call: the rules of a login. Its author writes it down in a
manifest, pipeline.yaml:

` + indent(project.Example) + `
'paddock publish DIR' deploys all its files and puts the pipeline in one step.`,
		Example: `  paddock pipelines publish login/
  paddock pipelines show login --yaml > pipeline.yaml
  paddock pipelines put pipeline.yaml               (of functions that are deployed already)
  paddock pipelines invoke login --input @login.json`,
	}, a.pipelinesList(), a.pipelinesShow(), a.pipelinesPut(), a.publishCommand(), invoke, a.pipelinesDelete())
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	return b.String()
}

func allPipelines(ctx context.Context, cl pb.CatalogClient) ([]*pb.Pipeline, error) {
	return pages(func(token string) ([]*pb.Pipeline, string, error) {
		r, err := cl.ListPipelines(ctx, &pb.ListPipelinesRequest{PageToken: token})
		return r.GetPipelines(), r.GetNextPageToken(), err
	})
}

func (a *app) pipelinesList() *cobra.Command {
	return a.onCatalog(&cobra.Command{Use: "list", Short: "List a tenant's pipelines", Args: args(),
		Example: `  paddock pipelines list --tenant acme`},
		func(ctx context.Context, cl pb.CatalogClient, _ []string) error {
			all, err := allPipelines(ctx, cl)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printProto(&pb.ListPipelinesResponse{Pipelines: all})
			}
			rows := [][]string{{"NAME", "KIND", "STEPS", "TIMEOUT", "CHANGED", "BY"}}
			for _, p := range all {
				rows = append(rows, []string{p.GetName(), p.GetKind(), stepsCount(p), timeoutText(p), ago(p.GetUpdated()), orDash(p.GetAuthor())})
			}
			return table(a.stdout, rows)
		})
}

// stepsCount is how many steps run, and how many stand there without: "5 (1 off)".
func stepsCount(p *pb.Pipeline) string {
	off := 0
	for _, s := range p.GetSteps() {
		if s.GetDisabled() {
			off++
		}
	}
	if off == 0 {
		return fmt.Sprint(len(p.GetSteps()))
	}
	return fmt.Sprintf("%d (%d off)", len(p.GetSteps()), off)
}

func timeoutText(p *pb.Pipeline) string {
	if p.GetTimeout() == nil {
		return "tenant's"
	}
	return p.GetTimeout().AsDuration().String()
}

func (a *app) pipelinesShow() *cobra.Command {
	c := &cobra.Command{Use: "show NAME", Short: "Show a pipeline, or write it as a manifest", Args: args("NAME"),
		Example: `  paddock pipelines show login
  paddock pipelines show login --yaml > pipeline.yaml`}
	asYAML := c.Flags().Bool("yaml", false, "as a manifest, for 'paddock pipelines put'")
	return a.onPipeline(c, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		p, err := cl.GetPipeline(ctx, &pb.GetPipelineRequest{Name: args[0]})
		switch {
		case err != nil:
			return err
		case a.jsonOut:
			return a.printProto(p)
		case *asYAML:
			return a.printManifest(p)
		}
		fmt.Fprintf(a.stdout, "%s: %s, timeout %s, changed %s by %s, revision %d\n", p.GetName(), p.GetKind(), timeoutText(p),
			ago(p.GetUpdated()), orDash(p.GetAuthor()), p.GetRevision())
		return table(a.stdout, stepRows(p, nil))
	})
}

// stepRows is a pipeline's steps as a table, with one more column if there is something to say of a function.
func stepRows(p *pb.Pipeline, remarks func(*pb.PipelineStep) string) [][]string {
	rows := [][]string{{"STEP", "FUNCTION", "ON FAILURE", "TIMEOUT", ""}}
	for i, s := range p.GetSteps() {
		timeout, rest := "-", ""
		if s.GetTimeout() != nil {
			timeout = s.GetTimeout().AsDuration().String()
		}
		if remarks != nil {
			rest = remarks(s)
		}
		if s.GetDisabled() {
			rest = strings.Join(nonEmpty("disabled", rest), ", ")
		}
		rows = append(rows, []string{fmt.Sprint(i + 1), s.GetFunction(), orDefault(s.GetOnFailure(), string(call.OnFailureFail)), timeout, rest})
	}
	return rows
}

func (a *app) printManifest(p *pb.Pipeline) error {
	m := project.Manifest{Name: p.GetName(), Kind: call.Kind(p.GetKind()), Timeout: project.Duration(p.GetTimeout().AsDuration())}
	for _, s := range p.GetSteps() {
		m.Steps = append(m.Steps, project.Step{
			Function: s.GetFunction(), OnFailure: call.FailurePolicy(s.GetOnFailure()), Timeout: project.Duration(s.GetTimeout().AsDuration()),
			Disabled: s.GetDisabled(),
		})
	}
	e := yaml.NewEncoder(a.stdout)
	e.SetIndent(2)
	if err := e.Encode(m); err != nil {
		return err
	}
	return e.Close()
}

func (a *app) pipelinesPut() *cobra.Command {
	c := &cobra.Command{
		Use: "put FILE|DIR", Short: "Make or replace a pipeline of functions that are deployed already", Args: args("FILE"),
		Long: `Make or replace a pipeline as its manifest says, of functions that are deployed already: a step's file stands for the
function of its name, and no code is deployed. 'paddock publish' does both.`,
		Example: `  paddock pipelines put pipeline.yaml
  paddock pipelines put login/ --revision 1042      (only if nobody has changed it since)`,
	}
	revision := c.Flags().Int64("revision", 0, "the pipeline must still be as of this revision")
	return a.onCatalog(c, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		m, err := project.ReadManifest(args[0])
		if err != nil {
			return usageError("%w", err)
		}
		p, err := cl.PutPipeline(ctx, &pb.PutPipelineRequest{Name: m.Name, Pipeline: pipelineOf(m), ExpectedRevision: *revision})
		switch {
		case err != nil:
			return err
		case a.jsonOut:
			return a.printProto(p)
		}
		_, err = fmt.Fprintf(a.stdout, "%s has %s steps (revision %d)\n", p.GetName(), stepsCount(p), p.GetRevision())
		return err
	})
}

// pipelineOf is a manifest as a message.
func pipelineOf(m *project.Manifest) *pb.Pipeline {
	p := &pb.Pipeline{Name: m.Name, Kind: string(m.Kind), Timeout: durationOf(time.Duration(m.Timeout))}
	for _, s := range m.Steps {
		p.Steps = append(p.Steps, &pb.PipelineStep{
			Function: s.Function, Disabled: s.Disabled, OnFailure: string(s.OnFailure), Timeout: durationOf(time.Duration(s.Timeout)),
		})
	}
	return p
}

func (a *app) pipelinesDelete() *cobra.Command {
	return a.onPipeline(&cobra.Command{Use: "delete NAME", Short: "Delete a pipeline; its functions stay", Args: args("NAME"),
		Example: `  paddock pipelines delete login --tenant acme`},
		func(ctx context.Context, cl pb.CatalogClient, args []string) error {
			r, err := cl.DeletePipeline(ctx, &pb.DeletePipelineRequest{Name: args[0]})
			return a.gone(args[0], r, err)
		})
}

// onPipeline is onCatalog for a command whose first argument is a pipeline's name.
func (a *app) onPipeline(c *cobra.Command, body func(ctx context.Context, cl pb.CatalogClient, args []string) error) *cobra.Command {
	c.ValidArgsFunction = a.complete(pipelineNames)
	return a.onCatalog(c, body)
}
