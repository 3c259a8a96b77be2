// What whoever looks may do. The server decides; this only spares them buttons that it would refuse.
export const me = $state<{ user: string; may: string[] }>({ user: "", may: ["read", "operate", "admin"] });

export const may = (right: "operate" | "admin"): boolean => me.may.includes(right);
