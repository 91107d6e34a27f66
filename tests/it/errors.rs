//! Errors of the whole workspace, as they are written.

use crate::floors::{rust_files, sources};
use syn::visit::Visit;

/// Whoever prints an error prints its sources behind it: a message that holds its cause has no source, and one with a source does not
/// repeat it (docs/decisions/0007).
#[test]
fn a_message_holds_its_cause_or_has_a_source() {
    let (mut seen, mut wrong) = (0, vec![]);
    for file in sources().iter().flat_map(|src| rust_files(src)) {
        let mut errors = Errors::default();
        errors.visit_file(&syn::parse_file(&std::fs::read_to_string(&file).unwrap()).unwrap());
        seen += errors.seen;
        wrong.extend(errors.wrong.iter().map(|variant| format!("{}: {variant}", file.display())));
    }
    assert!(seen > 100, "only {seen} variants of errors were found");
    assert!(wrong.is_empty(), "both a message and a source:\n{}", wrong.join("\n"));
}

#[test]
fn one_with_both_is_found() {
    let mut errors = Errors::default();
    errors.visit_file(&syn::parse_quote! {
        enum E {
            #[error("a: {0}")]
            A(#[from] B),
            #[error("c")]
            C { source: D },
            #[error(transparent)]
            F(#[from] G),
            #[error("h: {cause}")]
            H { cause: String },
        }
        #[error("j: {source}")]
        struct J {
            source: K,
        }
    });
    assert_eq!((errors.seen, errors.wrong), (5, ["A", "C", "J"].map(str::to_owned).to_vec()));
}

/// The variants and structs with a message, and those of them that are wrong.
#[derive(Default)]
struct Errors {
    seen: usize,
    wrong: Vec<String>,
}

impl<'ast> Visit<'ast> for Errors {
    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.look(&variant.attrs, &variant.fields, &variant.ident);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.look(&item.attrs, &item.fields, &item.ident);
    }
}

impl Errors {
    fn look(&mut self, attributes: &[syn::Attribute], fields: &syn::Fields, name: &syn::Ident) {
        let Some(error) = attributes.iter().find(|a| a.path().is_ident("error")) else { return };
        self.seen += 1;
        let transparent = error.parse_args::<syn::Ident>().is_ok_and(|word| word == "transparent");
        let is_source = |field: &syn::Field| {
            field.ident.as_ref().is_some_and(|name| name == "source")
                || field.attrs.iter().any(|a| a.path().is_ident("from") || a.path().is_ident("source"))
        };
        if !transparent && fields.iter().any(is_source) {
            self.wrong.push(name.to_string());
        }
    }
}
