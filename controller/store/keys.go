package store

import (
	"strconv"
	"strings"

	"paddock/internal/tenant"
)

// Root is the prefix of every key.
const Root = "/paddock/v1/"

// Prefixes of the kinds of records, each ending in '/'.
const (
	TenantsPrefix     = Root + "tenants/"
	UsagePrefix       = Root + "usage/"
	KeysPrefix        = Root + "keys/"
	FunctionsPrefix   = Root + "functions/"
	VersionsPrefix    = Root + "versions/"
	PipelinesPrefix   = Root + "pipelines/"
	SecretsPrefix     = Root + "secrets/"
	HostsPrefix       = Root + "hosts/"
	ControllersPrefix = Root + "controllers/"
	AssignmentsPrefix = Root + "assignments/"
	RuntimesPrefix    = Root + "runtimes/"
	ElectionPrefix    = Root + "election/"
)

// BlobsPrefix is that of stored code where the store keeps it. It is outside of Root: who follows the catalogue does not get it.
const BlobsPrefix = "/paddock/blobs/v1/"

// Tenant is tenants/<id>: limits, policy, state.
func Tenant(id tenant.ID) string { return TenantsPrefix + string(id) }

// Usage is usage/<tenant>: what counts against the tenant's limits. Whoever changes a count guards on it, so that two
// writers cannot both take the last place.
func Usage(id tenant.ID) string { return UsagePrefix + string(id) }

// Key is keys/<key id>: an API key's record.
func Key(id string) string { return KeysPrefix + id }

// Function is functions/<tenant>/<name>: which version is active.
func Function(id tenant.ID, name string) string { return FunctionsOf(id) + name }

// FunctionsOf is the prefix of a tenant's functions.
func FunctionsOf(id tenant.ID) string { return FunctionsPrefix + string(id) + "/" }

// Version is versions/<tenant>/<name>/<n>: one immutable version. The number is padded so that keys sort by it.
func Version(id tenant.ID, name string, n int64) string {
	s := strconv.FormatInt(n, 10)
	return VersionsOf(id, name) + strings.Repeat("0", max(0, 10-len(s))) + s
}

// VersionsOf is the prefix of a function's versions.
func VersionsOf(id tenant.ID, name string) string { return AllVersionsOf(id) + name + "/" }

// AllVersionsOf is the prefix of all versions of a tenant's functions.
func AllVersionsOf(id tenant.ID) string { return VersionsPrefix + string(id) + "/" }

// Pipeline is pipelines/<tenant>/<name>: the steps of a pipeline.
func Pipeline(id tenant.ID, name string) string { return PipelinesOf(id) + name }

// PipelinesOf is the prefix of a tenant's pipelines.
func PipelinesOf(id tenant.ID) string { return PipelinesPrefix + string(id) + "/" }

// SecretsOf is the prefix of a tenant's secrets.
func SecretsOf(id tenant.ID) string { return SecretsPrefix + string(id) + "/" }

// Secret is secrets/<tenant>/<name>, or secrets/<tenant>/<name>@<function>: a secret's ciphertext.
func Secret(id tenant.ID, ref string) string { return SecretsOf(id) + ref }

// Host is hosts/<host name>: the tenant whose public functions answer there. Whoever writes one guards that no other tenant's is
// there.
func Host(name string) string { return HostsPrefix + name }

// Controller is controllers/<id>, under the controller's lease.
func Controller(id string) string { return ControllersPrefix + id }

// Assignment is assignments/<controller>/<tenant>/<runtime>/<container>. It is valid while controllers/<controller>
// exists.
func Assignment(controller string, id tenant.ID, runtime, container string) string {
	return AssignmentsOf(controller) + string(id) + "/" + runtime + "/" + container
}

// AssignmentsOf is the prefix of a controller's assignments.
func AssignmentsOf(controller string) string { return AssignmentsPrefix + controller + "/" }

// Runtime is runtimes/<runtime>: which image its containers are made of.
func Runtime(name string) string { return RuntimesPrefix + name }

// Election is election/<name>: who holds a role that one process at a time has.
func Election(name string) string { return ElectionPrefix + name }

// BlobHead is heads/<tenant>/<name> below BlobsPrefix, with blob "<tenant>/<name>", or the beginning of it as a prefix.
func BlobHead(blob string) string { return BlobsPrefix + "heads/" + blob }

// BlobChunk is one piece of a blob's bytes.
func BlobChunk(blob, generation string, n int) string {
	s := strconv.Itoa(n)
	return BlobsPrefix + "chunks/" + blob + "/" + generation + "/" + strings.Repeat("0", max(0, 4-len(s))) + s
}

const blobsWriting = BlobsPrefix + "writing/"

// BlobWriting says that pieces are being written that no head refers to yet; that of no blob is the prefix of all.
func BlobWriting(blob, generation string) string {
	if blob == "" {
		return blobsWriting
	}
	return blobsWriting + blob + "/" + generation
}

// SplitBlobWriting returns the blob of such a key.
func SplitBlobWriting(key string) (blob string, ok bool) {
	rest, ok := strings.CutPrefix(key, blobsWriting)
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return "", false
	}
	return rest[:i], true
}

// Kind is what a key's record is.
type Kind uint8

// The kinds that SplitKey tells apart; every other key is KindOther.
const (
	KindOther Kind = iota
	KindTenant
	KindUsage
	KindKey
	KindFunction
	KindVersion
	KindPipeline
	KindSecret
	KindHost
	KindController
	KindAssignment
	KindRuntime
)

var kinds = map[string]struct {
	kind  Kind
	parts int
}{
	"tenants":     {KindTenant, 1},
	"usage":       {KindUsage, 1},
	"keys":        {KindKey, 1},
	"functions":   {KindFunction, 2},
	"versions":    {KindVersion, 3},
	"pipelines":   {KindPipeline, 2},
	"secrets":     {KindSecret, 2},
	"hosts":       {KindHost, 1},
	"controllers": {KindController, 1},
	"assignments": {KindAssignment, 4},
	"runtimes":    {KindRuntime, 1},
}

// SplitKey takes a key apart: its kind and the parts after the kind's prefix. A key of another form is KindOther.
func SplitKey(key string) (Kind, []string) {
	rest, ok := strings.CutPrefix(key, Root)
	if !ok {
		return KindOther, nil
	}
	name, rest, ok := strings.Cut(rest, "/")
	form, known := kinds[name]
	if !ok || !known {
		return KindOther, nil
	}
	parts := strings.Split(rest, "/")
	if len(parts) != form.parts {
		return KindOther, nil
	}
	return form.kind, parts
}
