package store

// Access is what one kind of process may do in a store that has access control, by prefixes of keys. What it may write it may
// read, too.
type Access struct {
	Read  []string
	Write []string
}

// ControllerAccess is that of controllers: they follow the catalogue, and write only of themselves and of what they have bound.
// They see no stored code, and what they see of secrets is ciphertext. Which of them writes is not told apart: a controller
// could claim to be another, and the latch on the other's host would refuse the calls.
func ControllerAccess() Access {
	return Access{Read: []string{Root}, Write: []string{ControllersPrefix, AssignmentsPrefix}}
}

// RouterAccess is that of routers, which do the management and the sweeps as well: everything that people ask for, the assignments
// of controllers that are gone, and nothing of what controllers say of themselves.
func RouterAccess() Access {
	return Access{Read: []string{Root}, Write: []string{
		TenantsPrefix, UsagePrefix, KeysPrefix, FunctionsPrefix, VersionsPrefix, PipelinesPrefix, SecretsPrefix, HostsPrefix,
		RuntimesPrefix, ElectionPrefix, BlobsPrefix, AssignmentsPrefix,
	}}
}
