package catalog

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "paddock/proto/paddock/v1"
)

// RuntimeView is which image a runtime's containers are made of. Nobody changes one.
type RuntimeView struct {
	Record   *pb.RuntimeRecord
	Revision int64
}

// Runtime returns what the store says of a runtime and whether it says anything: without, every controller uses its own image.
func (v *View) Runtime(name string) (*RuntimeView, bool) { return v.serving.runtimes.get(name) }

func (e *fleetEdit) putRuntime(name string, value []byte, rev int64) error {
	r := &pb.RuntimeRecord{}
	if err := proto.Unmarshal(value, r); err != nil {
		return err
	}
	if r.GetName() != name {
		return fmt.Errorf("it says that it is runtime %.40q", r.GetName())
	}
	e.runtimes.set(name, &RuntimeView{r, rev})
	return nil
}
