package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	pb "paddock/proto/paddock/v1"
)

// The modes of access, as the API names them.
const (
	accessKey    = "key"
	accessPublic = "public"
	accessURLKey = "url_key"
)

// accessFlags are the flags of `functions access`.
type accessFlags struct {
	public, private, urlKey, newURLKey bool
	rate                               float64
	burst                              int32
}

func (a *app) functionsAccess() *cobra.Command {
	c := &cobra.Command{
		Use: "access NAME", Short: "Show or say who may call a function: those with a key, everybody, or who has its URL key", Args: args("NAME"),
		Long: `Show or say who may call a function. Callers with a key of the tenant always may. Webhooks and browsers cannot send one:
--public lets everybody call it, --url-key those whose URL has ?key= with a key that only this function has. It is shown
once. Both are held to a rate of their own.`,
		Example: `  paddock functions access hook
  paddock functions access hook --url-key --rate 5
  paddock functions access hook --new-url-key        (the old one ends)
  paddock functions access hook --private            (nobody else any more)`,
	}
	var f accessFlags
	c.Flags().BoolVar(&f.public, "public", false, "everybody")
	c.Flags().BoolVar(&f.private, "private", false, "only those with a key of the tenant")
	c.Flags().BoolVar(&f.urlKey, "url-key", false, "who has the function's own ?key=")
	c.Flags().BoolVar(&f.newURLKey, "new-url-key", false, "make a new ?key=; the old one ends")
	c.Flags().Float64Var(&f.rate, "rate", 0, "calls per second without a key of the tenant (0 = the default)")
	c.Flags().Int32Var(&f.burst, "burst", 0, "the most at once (0 = follows the rate)")
	c.MarkFlagsMutuallyExclusive("public", "private", "url-key")
	return a.onFunction(c, func(ctx context.Context, cl pb.CatalogClient, args []string) error {
		now, err := cl.GetFunction(ctx, &pb.GetFunctionRequest{Name: args[0]})
		if err != nil {
			return err
		}
		req, changes := f.request(c, now)
		if !changes {
			return a.printAccess(&pb.UpdateFunctionResponse{Function: now})
		}
		r, err := cl.UpdateFunction(ctx, req)
		if err != nil {
			return err
		}
		return a.printAccess(r)
	})
}

// request lays the flags over what the function has; changes says whether there were any.
func (f *accessFlags) request(c *cobra.Command, now *pb.Function) (req *pb.UpdateFunctionRequest, changes bool) {
	access := &pb.Access{
		Mode: orDefault(now.GetAccess().GetMode(), accessKey), RatePerSecond: now.GetAccess().GetRatePerSecond(),
		RateBurst: now.GetAccess().GetRateBurst(),
	}
	for mode, set := range map[string]bool{accessPublic: f.public, accessKey: f.private, accessURLKey: f.urlKey} {
		if set {
			access.Mode = mode
		}
	}
	if c.Flags().Changed("rate") {
		access.RatePerSecond, access.RateBurst = f.rate, 0 // it follows, unless it is said too
	}
	if c.Flags().Changed("burst") {
		access.RateBurst = f.burst
	}
	first := access.GetMode() == accessURLKey && now.GetAccess().GetMode() != accessURLKey
	req = &pb.UpdateFunctionRequest{Name: now.GetName(), Access: access, NewUrlKey: f.newURLKey || first}
	for _, flag := range []string{"public", "private", "url-key", "new-url-key", "rate", "burst"} {
		changes = changes || c.Flags().Changed(flag)
	}
	return req, changes
}

// printAccess says who may call; a new URL key alone goes to standard output where a script reads it.
func (a *app) printAccess(r *pb.UpdateFunctionResponse) error {
	if a.jsonOut {
		return a.printProto(r)
	}
	f := r.GetFunction()
	out := a.stdout
	if r.GetUrlKey() != "" {
		fmt.Fprintln(a.stdout, r.GetUrlKey())
		out = a.stderr
		if a.stderrTTY {
			fmt.Fprintf(out, "the line above is its ?key= and is not shown again\n")
		}
	}
	_, err := fmt.Fprintf(out, "%s: %s\n", f.GetName(), accessSentence(f.GetAccess()))
	return err
}

func accessSentence(acc *pb.Access) string {
	rate := "the default rate"
	if acc.GetRatePerSecond() > 0 {
		rate = strconv.FormatFloat(acc.GetRatePerSecond(), 'g', -1, 64) + " calls/s"
	}
	switch acc.GetMode() {
	case accessPublic:
		return "everybody may call it, at most " + rate
	case accessURLKey:
		return "who has its ?key= may call it, at most " + rate
	}
	return "only those with a key of the tenant may call it"
}

// accessText is access in a table.
func accessText(acc *pb.Access) string { return orDefault(acc.GetMode(), accessKey) }
