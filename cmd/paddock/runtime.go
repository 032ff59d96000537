package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/cmd/paddock/machine"
	"paddock/internal/config"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes/node"
)

const runtimeHelp = `Bring new runtime images out, and take them back.

An image must be on every machine that is to use it: 'build' makes this program's own there while the service serves, and one that
another machine has is copied (docs/operating.md). 'rollout' then goes controller by controller, and back by itself if the image fails.`

func (a *app) runtimeCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "runtime", Short: "Roll out runtime images, and take them back", Long: runtimeHelp,
		Example: `  paddock runtime build
  paddock runtime ls
  paddock runtime rollout 4f9c2d1ab3e0 --canary 10
  paddock runtime status
  paddock runtime rollback`,
	}, a.runtimeList(), a.runtimeBuild(), a.runtimeRollout(), a.runtimeStatus(), a.runtimePause(), a.runtimeResume(), a.runtimeRollback())
}

func (a *app) runtimeBuild() *cobra.Command {
	c := &cobra.Command{
		Use: "build", Short: "Make this program's runtime image on this machine, beside those in use", Args: args(),
		Long: "Make the runtime image of this program in a data directory, also while a service of another version serves from there. It is kept\n" +
			"until its directory is removed. Needs root.",
		Example: `  paddock runtime build
  ./paddock-new runtime build --data-dir /var/lib/paddock
  paddock runtime build --sandbox-ca /etc/our-ca.pem`,
	}
	dir := c.Flags().String("data-dir", config.Defaults().DataDir, "of the service that is to use it")
	cache := c.Flags().String("cache-dir", "", "downloads, may be shared (default: inside of --data-dir)")
	ca := c.Flags().String("sandbox-ca", "", "PEM file of private authorities that code in sandboxes trusts, too")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		d := machine.DataDir{Path: *dir}
		path, err := filepath.Abs(*dir)
		if err != nil {
			return usageError("%w", err)
		}
		d.Path = path
		if *cache == "" {
			*cache = filepath.Join(d.Private(), "downloads")
		}
		image, err := node.Build(cmd.Context(), node.Options{Dir: d.Images(), CacheDir: *cache, CAFile: *ca})
		if err == nil {
			err = node.Keep(d.Images(), image.Digest)
		}
		if err != nil {
			return platformError("%w", machine.Explain(err))
		}
		if a.jsonOut {
			return a.printJSON(map[string]string{"digest": image.Digest, "version": image.Version, "rootfs": image.Rootfs})
		}
		_, err = fmt.Fprintln(a.stdout, image.Digest)
		return err
	})
	return c
}

func (a *app) runtimeList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the images that the controllers have, and what is made of them", Args: args(),
		Example: `  paddock runtime ls
  paddock runtime ls --json | jq '.runtimes[].nodes'`,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				r, err := pb.NewPoolsClient(cc).ListRuntimes(ctx, &pb.ListRuntimesRequest{})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printProto(r)
				}
				rows := [][]string{{"RUNTIME", "IMAGE", "NODE", "VERSION", "SHARE", "READY", "ASSIGNED", "CALLS", "FAILED", "ERRORS", "NOTE"}}
				for _, rt := range r.GetRuntimes() {
					for _, n := range rt.GetNodes() {
						rows = append(rows, imageRows(rt, n)...)
					}
				}
				return table(a.stdout, rows)
			})
		}),
	}
}

func imageRows(rt *pb.Runtime, n *pb.RuntimeNode) (rows [][]string) {
	for _, s := range n.GetImages() {
		rows = append(rows, []string{rt.GetName(), shortID(s.GetDigest()), n.GetNode(), orDash(s.GetVersion()), fmt.Sprintf("%d %%", s.GetPercent()),
			fmt.Sprint(s.GetReady()), fmt.Sprint(s.GetAssigned()), fmt.Sprint(s.GetCalls()), fmt.Sprint(s.GetFailed()), fmt.Sprint(s.GetErrors()),
			orDash(imageNote(rt, s))})
	}
	for _, digest := range n.GetLacks() {
		rows = append(rows, []string{rt.GetName(), shortID(digest), n.GetNode(), "-", "-", "-", "-", "-", "-", "-", "not there"})
	}
	if n.GetState() == "silent" {
		rows = append(rows, []string{rt.GetName(), "-", n.GetNode(), "-", "-", "-", "-", "-", "-", "-", "does not answer"})
	}
	return rows
}

func imageNote(rt *pb.Runtime, s *pb.ImageStatus) string {
	var notes []string
	for _, note := range []struct {
		digest, text string
	}{{rt.GetImage(), "current"}, {rt.GetFormer(), "former"}} {
		if s.GetDigest() == note.digest {
			notes = append(notes, note.text)
		}
	}
	if r := rt.GetRollout(); s.GetDigest() == r.GetImage() && r.GetState() != "done" {
		notes = append(notes, strings.ReplaceAll(r.GetState(), "_", " "))
	}
	if s.GetOwn() {
		notes = append(notes, "own")
	}
	if s.GetProblem() != "" {
		notes = append(notes, "refused: "+s.GetProblem())
	}
	if s.GetStartFailures() > 0 {
		notes = append(notes, fmt.Sprintf("%d did not start", s.GetStartFailures()))
	}
	return strings.Join(notes, ", ")
}

func (a *app) runtimeRollout() *cobra.Command {
	c := &cobra.Command{
		Use: "rollout IMAGE", Short: "Bring an image out, controller by controller", Args: args("IMAGE"),
		Long: `Make a share of the containers of the first controller of IMAGE (its digest, or the beginning of it), then all of that controller's,
then those of one controller after the other. Warm containers are replaced one by one; assigned ones as they go idle, or, with --drain,
each once its successor is bound and has its code. An image whose containers do not start, or whose calls fail more often than those of
the image before, is taken back by itself.

It returns at once; 'paddock runtime status --follow' waits.`,
		Example: `  paddock runtime rollout 4f9c2d1ab3e0
  paddock runtime rollout 4f9c2d1ab3e0 --canary 25 --drain --watch 10m --min-calls 1000`,
		ValidArgsFunction: a.completeImages,
	}
	req := &pb.StartRolloutRequest{Runtime: servedRuntime, Gate: &pb.RolloutGate{}}
	c.Flags().Int32Var(&req.CanaryPercent, "canary", 0, "percent of what the first controller makes (default 10)")
	c.Flags().BoolVar(&req.Drain, "drain", false, "replace assigned containers too, without failing a call, rather than wait until they go idle")
	c.Flags().Int32Var(&req.Gate.MinCalls, "min-calls", 0, "calls after which an image is judged (default 100)")
	c.Flags().Float64Var(&req.Gate.MaxFailedPercent, "max-failed", 0, "percentage points more of calls that the sandbox fails (default 2)")
	c.Flags().Float64Var(&req.Gate.MaxErrorPercent, "max-errors", 0, "percentage points more of calls whose code fails (default 20)")
	c.Flags().Int32Var(&req.Gate.MaxStartFailures, "max-start-failures", 0, "containers that do not start (default 3)")
	watch := c.Flags().Duration("watch", 0, "how long each step is watched where there are fewer calls (default 2m)")
	c.RunE = runE(func(cmd *cobra.Command, args []string) error {
		req.Image = args[0]
		if c.Flags().Changed("watch") {
			req.Gate.Watch = durationpb.New(*watch)
		}
		return a.changeRuntime(cmd.Context(), func(ctx context.Context, p pb.PoolsClient) (*pb.Runtime, error) { return p.StartRollout(ctx, req) })
	})
	return c
}

func (a *app) completeImages(cmd *cobra.Command, given []string, begun string) (found []string, _ cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	_ = a.with(ctx, func(ctx context.Context, cc *grpc.ClientConn) error {
		r, err := pb.NewPoolsClient(cc).ListRuntimes(ctx, &pb.ListRuntimesRequest{})
		for _, rt := range r.GetRuntimes() {
			for _, n := range rt.GetNodes() {
				for _, s := range n.GetImages() {
					if id := shortID(s.GetDigest()); s.GetPresent() && strings.HasPrefix(id, begun) && !slices.Contains(found, id) {
						found = append(found, id)
					}
				}
			}
		}
		return err
	})
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) runtimePause() *cobra.Command {
	return &cobra.Command{
		Use: "pause", Short: "Keep a rollout where it is; an image that fails is taken back all the same", Args: args(),
		Example: "  paddock runtime pause",
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.changeRuntime(cmd.Context(), func(ctx context.Context, p pb.PoolsClient) (*pb.Runtime, error) {
				return p.PauseRollout(ctx, &pb.PauseRolloutRequest{Runtime: servedRuntime})
			})
		}),
	}
}

func (a *app) runtimeResume() *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "Let a paused rollout go on", Args: args(), Example: "  paddock runtime resume",
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.changeRuntime(cmd.Context(), func(ctx context.Context, p pb.PoolsClient) (*pb.Runtime, error) {
				return p.ResumeRollout(ctx, &pb.ResumeRolloutRequest{Runtime: servedRuntime})
			})
		}),
	}
}

func (a *app) runtimeRollback() *cobra.Command {
	return &cobra.Command{
		Use: "rollback", Short: "Take back the rollout under way, or else go back to the former image, everywhere at once", Args: args(),
		Example: "  paddock runtime rollback",
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			return a.changeRuntime(cmd.Context(), func(ctx context.Context, p pb.PoolsClient) (*pb.Runtime, error) {
				return p.RollbackRuntime(ctx, &pb.RollbackRuntimeRequest{Runtime: servedRuntime})
			})
		}),
	}
}

func (a *app) changeRuntime(ctx context.Context, change func(context.Context, pb.PoolsClient) (*pb.Runtime, error)) error {
	return a.with(ctx, func(ctx context.Context, cc *grpc.ClientConn) error {
		rt, err := change(ctx, pb.NewPoolsClient(cc))
		if err != nil {
			return err
		}
		if a.jsonOut {
			return a.printProto(rt)
		}
		_, err = fmt.Fprintln(a.stdout, rolloutText(rt))
		return err
	})
}

// rolloutText says in a line how a runtime stands.
func rolloutText(rt *pb.Runtime) string {
	r := rt.GetRollout()
	text := fmt.Sprintf("%s: image %s, former %s", rt.GetName(), orDefault(shortID(rt.GetImage()), "each controller's own"), orDash(shortID(rt.GetFormer())))
	if r == nil {
		return text
	}
	text += fmt.Sprintf("; rollout of %s: %s", shortID(r.GetImage()), strings.ReplaceAll(r.GetState(), "_", " "))
	if r.GetPaused() {
		text += ", paused"
	}
	if r.GetNode() != "" {
		text += " at " + r.GetNode()
	}
	if n := len(r.GetMoved()); n > 0 {
		text += fmt.Sprintf(", %s moved", count(int64(n), "controller"))
	}
	if r.GetReason() != "" {
		text += ": " + r.GetReason()
	}
	return text
}

// statusLook is how often a rollout that is followed is looked at.
const statusLook = time.Second

func (a *app) runtimeStatus() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Say how far the newest rollout is", Args: args(),
		Long:    "Say how far the newest rollout is. With --follow until it is over; exit code 3 if it was rolled back.",
		Example: "  paddock runtime status\n  paddock runtime status --follow",
	}
	follow := c.Flags().BoolP("follow", "f", false, "until it is over")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
			for last := ""; ; {
				r, err := pb.NewPoolsClient(cc).ListRuntimes(ctx, &pb.ListRuntimesRequest{})
				if err != nil {
					return err
				}
				for _, rt := range r.GetRuntimes() {
					if a.jsonOut {
						if err := a.printProto(rt); err != nil {
							return err
						}
					} else if text := rolloutText(rt); text != last {
						last = text
						fmt.Fprintln(a.stdout, text)
					}
					if state := rt.GetRollout().GetState(); !*follow || state == "" || state == "done" {
						return nil
					} else if state == "rolled_back" {
						return platformError("the rollout was rolled back")
					}
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(statusLook):
				}
			}
		})
	})
	return c
}
