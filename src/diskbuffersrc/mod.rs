mod place;
mod properties;
mod settings;
mod timeline;
mod uri;
