package series

// The roles of a process, as Info.Role, the rings of gossip and the Info of Thanos name them. They are sent between
// processes and written to files (a receiver's directory names its role). So a name never changes: older processes and
// files would not know the new one.
const (
	RoleReceive     = "receive"
	RoleStore       = "store"
	RoleQuery       = "query"
	RoleCompact     = "compact"
	RoleRule        = "rule"
	RoleSidecar     = "sidecar"
	RoleDistributor = "distributor"
)
