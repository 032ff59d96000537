package catalog

import (
	"testing"

	"paddock/internal/call"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// TestResolveDraft: stored functions of a draft are found as a stored pipeline's are, and what it brings is taken as it is.
func TestResolveDraft(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.tenant("empty", nil)
	w.deploy("acme", "f", "v1")
	w.deploy("acme", "f", "v2")
	must(t, w.service.MarkProven(t.Context(), "acme", "f", 1, hashCode([]byte("v1"))))
	_, err := w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "task", Source: []byte("t"), Kind: call.KindWebtask})
	must(t, err)
	own := &VersionView{Hash: "own", Kind: call.KindRule, Runtime: "node"}
	p, err := DraftPipeline("", []*pb.PipelineStep{
		{Function: "new"}, {Function: "f", OnFailure: "last_good"}, {Function: "gone", Disabled: true}, {Function: "f@1"},
	})
	must(t, err)
	r, err := w.view.ResolveDraft("acme", p, []*VersionView{own, nil, own, nil}, 0)
	must(t, err)
	if s := r.Steps; s[0].Code != own || s[1].Code.Number != 2 || s[1].LastGood.Number != 1 || s[2].Code != nil || s[3].Code.Number != 1 ||
		r.Runtime != "node" || r.Revision != w.view.Revision() || p.Kind != call.KindRule {
		t.Errorf("%+v", r)
	}
	if _, err := w.view.ResolveDraft("empty", p, []*VersionView{own, own, nil, own}, 0); err != nil {
		t.Errorf("a draft that is whole, of a tenant that has nothing: %v", err)
	}
	_, err = w.view.ResolveDraft("empty", p, make([]*VersionView, 4), 0)
	wantKind(t, err, errs.NotFound, "step 1", "no function new")
	p, err = DraftPipeline("action", []*pb.PipelineStep{{Function: "task"}})
	must(t, err)
	_, err = w.view.ResolveDraft("acme", p, make([]*VersionView, 1), 0)
	wantKind(t, err, errs.Invalid, "step 1", "task", "webtask", "action")
}
